//! The codec against the packet corpus, against every cut and bend of its packets, against packets
//! made up at random, and against the codec of mqttbytes.

mod corpus;
