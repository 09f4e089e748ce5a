"""Human-readable text: units and wording. It knows no product."""
