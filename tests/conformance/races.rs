//! Cases in which several things happen at once.
