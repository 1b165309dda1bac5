"""pgconform: does this database keep the promises that its maintenance guide makes?"""

__version__ = "0.1.0"
