"""What may not leave: rules as data, and what finds and masks their matches in whole texts and in streams."""
