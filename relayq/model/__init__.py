"""Pure decisions and their data: nothing here does I/O or reads a clock."""
