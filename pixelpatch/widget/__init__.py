"""The inspector: `inspector.py` in Python, `inspector.js`, `.css` and `.html` in the browser."""
