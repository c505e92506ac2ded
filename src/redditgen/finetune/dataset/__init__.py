"""Files of records or of text to tokens, and which of them are held out."""
