//! Any bytes to both codecs: they read them or refuse them, and never panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use talewire_proto::Limits;
use talewire_proto::codec::Codec;

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default();
    for codec in [Codec::Json, Codec::Protobuf] {
        if let Ok(commands) = codec.decode_frame(bytes, &limits) {
            assert!(!commands.is_empty());
        }
    }
});
