"""From written text to what is spoken: numbers and dates as words, abbreviations in full, symbols that have ids."""
