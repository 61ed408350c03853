//! The data plane: the only importer of aya.

pub mod model;
