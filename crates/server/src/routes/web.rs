//! The page: the built web app, embedded into the binary.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use rust_embed::{EmbeddedFile, RustEmbed};

/// The built files of `apps/web`, with `.br` and `.gz` beside those that compress well. Empty when the web app was not built.
#[derive(RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/../../apps/web/dist"]
#[allow_missing = true]
struct Files;

/// Only our own scripts, and no image from elsewhere: an image's address can carry words out of a story.
pub(super) const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     connect-src 'self' ws: wss:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'";

const NOT_BUILT: &str = "The web app is not in this binary. Run `npm ci && npm run build`, then build the server again; \
     `make run` does both.\n";

/// An asset, or the page itself for every address that the page's own router knows.
pub(super) async fn page(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return (StatusCode::METHOD_NOT_ALLOWED, "only GET here\n").into_response();
    }
    let path = uri.path().trim_start_matches('/');
    if let Some(response) = file(path, &headers) {
        return response;
    }
    let of_the_page = path.is_empty() || path.starts_with("s/") || path.starts_with("join/");
    if !of_the_page {
        return (StatusCode::NOT_FOUND, "there is nothing at this address\n").into_response();
    }
    file("index.html", &headers).unwrap_or_else(|| (StatusCode::SERVICE_UNAVAILABLE, NOT_BUILT).into_response())
}

fn file(path: &str, request: &HeaderMap) -> Option<Response> {
    let plain = Files::get(path)?;
    let tag = format!("\"{}\"", hex(&plain.metadata.sha256_hash()[..12]));
    let mut response = if request.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        body(path, plain, request)
    };
    let kind = mime_guess::from_path(path).first_or_octet_stream();
    let kind = if kind.type_() == "text" || kind.subtype() == "javascript" {
        format!("{kind}; charset=utf-8")
    } else {
        kind.to_string()
    };
    // Names under assets/ carry a hash of their content.
    let cache = if path.starts_with("assets/") { "public, max-age=31536000, immutable" } else { "no-cache" };
    let headers = response.headers_mut();
    let mut set = |name, value: &str| {
        headers.insert(name, HeaderValue::from_str(value).expect("these values are plain ASCII"));
    };
    set(header::CONTENT_TYPE, &kind);
    set(header::CACHE_CONTROL, cache);
    set(header::ETAG, &tag);
    set(header::VARY, "Accept-Encoding");
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(header::REFERRER_POLICY, "same-origin");
    Some(response)
}

/// The smallest form of a file that the browser takes.
fn body(path: &str, plain: EmbeddedFile, request: &HeaderMap) -> Response {
    let accepted = request.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or("");
    for (suffix, encoding) in [(".br", "br"), (".gz", "gzip")] {
        let takes = accepted.split(',').any(|one| one.split(';').next().is_some_and(|name| name.trim() == encoding));
        if takes && let Some(file) = Files::get(&format!("{path}{suffix}")) {
            let encoding = [(header::CONTENT_ENCODING, encoding)];
            return (encoding, file.data.into_owned()).into_response();
        }
    }
    plain.data.into_owned().into_response()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
