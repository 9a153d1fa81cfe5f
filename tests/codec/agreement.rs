//! Agreement with mqttbytes.
