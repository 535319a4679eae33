"""How lanes meet: in shared memory on a host, over the workers' connections between hosts."""
