//! WebSocket's opening handshake (RFC 6455, section 4.2): what a request must say, and what is answered. How frames are read
//! stands in [`talewire_proto::websocket`]; everything sent is written by the outbox.

use base64::Engine;
use http::{HeaderMap, Method, Request, StatusCode, Version, header};
use talewire_proto::codec::Codec;
use talewire_proto::websocket::{Deflate, agree};

/// What a good handshake is answered with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Accept {
    /// `Sec-WebSocket-Accept`; HTTP/2 has none.
    pub(crate) key: Option<String>,
    /// The encoding that the client asked for.
    pub(crate) codec: Codec,
    /// Whether it asked by a subprotocol, which is to be echoed.
    pub(crate) echo: bool,
    /// How messages may be compressed, if the client offers it as we can.
    pub(crate) deflate: Option<Deflate>,
}

/// Checks an opening handshake (RFC 6455, section 4.2.1; over HTTP/2 RFC 8441, section 5).
///
/// # Errors
/// The status and a sentence for people: 405, 426 with the version we speak, or 400.
pub(crate) fn handshake<B>(request: &Request<B>) -> Result<Accept, (StatusCode, &'static str)> {
    let headers = request.headers();
    let http2 = request.version() == Version::HTTP_2;
    // That the protocol of a CONNECT is WebSocket was seen to before.
    let fits = if http2 { Method::CONNECT } else { Method::GET };
    if request.method() != fits || !(http2 || request.version() == Version::HTTP_11) {
        let text = "a WebSocket is opened by GET over HTTP/1.1, by CONNECT over HTTP/2";
        return Err((StatusCode::METHOD_NOT_ALLOWED, text));
    }
    if !http2
        && (!has_token(headers, &header::CONNECTION, "upgrade") || !has_token(headers, &header::UPGRADE, "websocket"))
    {
        return Err((StatusCode::UPGRADE_REQUIRED, "this address is for WebSocket connections"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err((StatusCode::UPGRADE_REQUIRED, "WebSocket version 13 is spoken here"));
    }
    let key = if http2 { None } else { Some(answer_to_key(headers)?) };
    let offers = |name| has_token(headers, &header::SEC_WEBSOCKET_PROTOCOL, name);
    let query = request.uri().query().unwrap_or("");
    let asks =
        |name: &str| form_urlencoded::parse(query.as_bytes()).any(|(key, value)| key == name && value == "protobuf");
    let (codec, echo) = match (offers("centrifuge-protobuf"), offers("centrifuge-json")) {
        (true, _) => (Codec::Protobuf, true),
        (false, true) => (Codec::Json, true),
        (false, false) if asks("cf_protocol") || asks("format") => (Codec::Protobuf, false),
        (false, false) => (Codec::Json, false),
    };
    let extensions = headers.get_all(header::SEC_WEBSOCKET_EXTENSIONS).into_iter();
    let deflate = agree(extensions.filter_map(|value| value.to_str().ok()));
    Ok(Accept { key, codec, echo, deflate })
}

fn answer_to_key(headers: &HeaderMap) -> Result<String, (StatusCode, &'static str)> {
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map_or(&b""[..], |key| key.as_bytes());
    let nonce = base64::engine::general_purpose::STANDARD.decode(key);
    if !nonce.is_ok_and(|nonce| nonce.len() == 16) {
        return Err((StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is not 16 bytes in base64"));
    }
    Ok(tungstenite::handshake::derive_accept_key(key))
}

/// Whether a header that lists words has this one.
pub(super) fn has_token(headers: &HeaderMap, name: &header::HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_checked_before_it_is_answered() {
        let good = || {
            Request::get("/connection/websocket")
                .header("connection", "keep-alive, Upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-version", "13")
                .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        };
        let status = |request: http::request::Builder| {
            handshake(&request.body(()).expect("a request")).map_err(|(status, _)| status.as_u16())
        };
        let accept =
            |codec, echo| Accept { key: Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".into()), codec, echo, deflate: None };
        assert_eq!(status(good()), Ok(accept(Codec::Json, false)));
        assert_eq!(status(Request::get("/")), Err(426));
        let offers = |protocol: &str| status(good().header("sec-websocket-protocol", protocol));
        assert_eq!(offers("other, centrifuge-protobuf"), Ok(accept(Codec::Protobuf, true)));
        assert_eq!(offers("centrifuge-json"), Ok(accept(Codec::Json, true)));
        assert_eq!(status(good().uri("/?cf_protocol=protobuf")), Ok(accept(Codec::Protobuf, false)));
        let mut short = good();
        short.headers_mut().expect("headers").insert("sec-websocket-key", "c2hvcnQ=".parse().expect("a value"));
        assert_eq!(status(short), Err(400));
        let mut old = good();
        old.headers_mut().expect("headers").insert("sec-websocket-version", "8".parse().expect("a value"));
        assert_eq!(status(old), Err(426));
        // A stream of HTTP/2 has no key: it cannot be mistaken for something else.
        let stream = || Request::connect("/").version(Version::HTTP_2).header("sec-websocket-version", "13");
        assert_eq!(status(stream()), Ok(Accept { key: None, codec: Codec::Json, echo: false, deflate: None }));
        assert_eq!(status(stream().method("GET")), Err(405));
        assert_eq!(status(good().method("CONNECT")), Err(405));
    }
}
