"""Text for people: units as they write them, and wording. It knows no product."""
