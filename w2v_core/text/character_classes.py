"""The classes that `words.WordTable` sorts characters into; which character is in which is the caller's decision."""

SEPARATOR, NEWLINE, IGNORED, WORD, MARK, JOINER, INNER, SOLO, SYMBOL, REGIONAL = range(10)
"""Classes of a character.

    IGNORED    is left out of the word that it stands in, and splits none
    WORD       belongs to a word
    MARK       belongs to the word before it, and begins none
    JOINER     belongs to a word if it stands between two characters of it
    INNER      the same, but two in a row separate
    SOLO       is a word, with the marks behind it
    SYMBOL     the same, and joiners join several to one; REGIONAL: two are one word (a flag)

In a byte table 0 separates, 1 ends the line, ASCII_INNER is INNER, and any other value is the byte that the word receives.
"""
ASCII_INNER = 2
