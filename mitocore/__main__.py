"""`python -m mitocore`."""

from mitocore.cli.main import app

app()
