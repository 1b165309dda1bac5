pytest_plugins = ["pgconform.plugin"]
