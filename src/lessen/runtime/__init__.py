"""The running form: physical removal, early return, no gradients."""
