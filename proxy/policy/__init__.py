"""The content policy: rules as data, and what finds and masks their matches in complete texts and in streams."""
