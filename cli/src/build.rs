//! Building images: what is sent, what comes back, and a base where no registry gives one.

pub(crate) mod bootstrap;
pub(crate) mod context;
pub(crate) mod stream;
