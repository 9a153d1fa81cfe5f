//! Cases of a hostile or clumsy peer that no other test names.
