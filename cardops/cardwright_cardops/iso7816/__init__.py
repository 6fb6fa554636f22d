"""ISO 7816-4: APDUs, BER-TLV, status words, and one exchange of one logical command."""
