//! Sealing a Compose application and its images into one image: how it is read, where its images come from, and what is made of them.

pub(crate) mod appliance;
pub(crate) mod archive;
pub(crate) mod baker;
pub(crate) mod images;
pub(crate) mod names;
pub(crate) mod pipe;
pub(crate) mod project;
