"""The exchange of rows between copies: in shared memory between workers of one host, over their connections between hosts."""
