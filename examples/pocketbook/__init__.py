"""Pocketbook: a small finance app, observed by pbmon. `app.py` is the app, `demo.py` the demo."""
