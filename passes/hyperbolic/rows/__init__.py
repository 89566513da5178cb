"""The algebra of rows: forms, their arithmetic, and functions of them; torch is not needed here."""
