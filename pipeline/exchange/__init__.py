"""The exchange of rows between copies: in shared memory on one host, over the workers' connections between hosts."""
