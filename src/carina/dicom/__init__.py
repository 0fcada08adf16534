"""Reading CT series; writing SEG, SR and Encapsulated PDF objects."""
