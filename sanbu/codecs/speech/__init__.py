"""From written text to what is spoken: numbers and dates as words, abbreviations in full, signs that have ids."""
