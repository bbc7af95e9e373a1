"""CalibQuant: keys and values of visual tokens in 1 to 8 bits, and attention that reads them so."""
