//! The codec against the packet corpus, against every cut and bend of its packets, against packets
//! made up at random, and against the codec of mqttbytes.

mod agreement;
mod build;
mod corpus;
mod fields;
mod generated;
mod mangled;
mod properties;
mod server;
