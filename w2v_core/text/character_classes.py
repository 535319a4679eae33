"""The classes of characters that `words.WordTable` knows; the caller decides which character belongs to which class."""

SEPARATOR, NEWLINE, IGNORED, WORD, MARK, JOINER, INNER, SOLO, SYMBOL, REGIONAL = range(10)
"""Classes of a character.

    SEPARATOR  separates words
    NEWLINE    separates words and ends the line
    IGNORED    is dropped without splitting the word it stands in
    WORD       belongs to a word
    MARK       belongs to the word before it, and never begins one
    JOINER     belongs to a word if it stands between two of its characters
    INNER      the same, but two in a row separate words
    SOLO       is a word by itself, together with the marks after it
    SYMBOL     the same, and joiners combine several into one word
    REGIONAL   the same, and two of them are one word (a flag)

In a byte table 0 separates, 1 ends the line, ASCII_INNER is INNER, and any other value is the byte that goes into the word.
"""
ASCII_INNER = 2
