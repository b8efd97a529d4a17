"""The exercises of each chapter, with their checks, hints and solutions."""
