//! `/app`: what the page and programs of people use, by login.
//!
//! A login comes by the cookie or as a bearer token. A cookie goes along with every request that any page makes a
//! browser send, so that with one an unsafe request must show a CSRF token and come from an allowed origin.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use talewire_auth::{Credentials, Login, LoginRefusal, display_name, new_user};
use talewire_proto::grant::TokenVerdict;
use talewire_proto::{BranchId, ErrorCode, Grant, Payload, StoryId};
use tokio::sync::OwnedSemaphorePermit;

use super::error::HttpError;
use crate::accept::Remote;
use crate::node::{Node, unix_ms};
use crate::perform::{caller, refused};

/// The cookie that a browser keeps a login in.
const COOKIE: &str = "talewire_login";

const CSRF_HEADER: HeaderName = HeaderName::from_static("x-csrf-token");

#[derive(Serialize)]
struct User<'a> {
    id: &'a str,
    name: &'a str,
    guest: bool,
}

impl<'a> User<'a> {
    fn of(login: &'a Login) -> Self {
        Self { id: login.user.as_str(), name: &login.name, guest: true }
    }
}

/// What the page needs to know before anybody has said who they are.
pub(super) async fn config(State(node): State<Arc<Node>>) -> Response {
    #[derive(Serialize)]
    struct Config<'a> {
        narrator: Narrator<'a>,
        version: &'a str,
    }
    #[derive(Serialize)]
    struct Narrator<'a> {
        provider: &'a str,
        label: &'a str,
    }
    let narrator = Narrator { provider: &node.about.provider, label: &node.about.label };
    no_store(Json(Config { narrator, version: env!("CARGO_PKG_VERSION") }).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginRequest {
    name: String,
    #[serde(default)]
    tab: bool,
}

#[derive(Serialize)]
struct LoginReply<'a> {
    user: User<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    csrf: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
}

/// A guest login: for this browser by a cookie, or for one tab by a token in the answer.
pub(super) async fn login(
    State(node): State<Arc<Node>>,
    Extension(Remote(visitor)): Extension<Remote>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, HttpError> {
    check_origin(&node, &headers, Credentials::Explicit)?;
    let request: LoginRequest = read_json(&headers, &body)?;
    let name = display_name(&request.name)
        .map_err(|bad| HttpError::new(StatusCode::UNPROCESSABLE_ENTITY, ErrorCode::BadText, bad.to_string()))?;
    node.guard.login(visitor).map_err(HttpError::too_many)?;
    let user = new_user();
    node.store.insert_guest(&user, &name).await.map_err(|error| {
        tracing::error!(%error, "a guest could not be kept");
        HttpError::from(ErrorCode::Unavailable)
    })?;
    let now_ms = unix_ms();
    let token = node.auth.logins.issue(&user, &name, now_ms);
    let login = node.auth.logins.read(&token, now_ms).map_err(|_| ErrorCode::Internal)?;
    let user = User::of(&login);
    if request.tab {
        return Ok(no_store(Json(LoginReply { user, csrf: None, token: Some(token) }).into_response()));
    }
    let reply = LoginReply { user, csrf: Some(node.auth.logins.csrf(&login)), token: None };
    let mut response = no_store(Json(reply).into_response());
    set_cookie(&mut response, &headers, &token, node.auth.logins.lifetime_s());
    Ok(response)
}

/// Who the login stands for.
pub(super) async fn me(State(node): State<Arc<Node>>, headers: HeaderMap) -> Result<Response, HttpError> {
    if let Some(token) = bearer(&headers) {
        let login = node.verify_login(token, unix_ms()).await.map_err(|refusal| match refusal {
            LoginRefusal::Unknown => ErrorCode::Unavailable,
            _ => ErrorCode::Unauthorized,
        })?;
        return Ok(no_store(Json(LoginReply { user: User::of(&login), csrf: None, token: None }).into_response()));
    }
    let Some(login) = login_of(&node, &headers, unix_ms()).await? else {
        // Every first visit asks; nobody yet is an answer, and no error in the browser's console.
        return Ok(no_store(Json(serde_json::Map::new()).into_response()));
    };
    let csrf = Some(node.auth.logins.csrf(&login));
    Ok(no_store(Json(LoginReply { user: User::of(&login), csrf, token: None }).into_response()))
}

/// Ends the login, with what it has open on any node. Whoever has a copy of it is nobody any more.
pub(super) async fn logout(State(node): State<Arc<Node>>, headers: HeaderMap) -> Result<Response, HttpError> {
    let grant = who(&node, &headers, Unsafe::Yes).await?;
    // A token of another system is not ours to end.
    if let (Some(issued_at_ms), Some(expires_at_ms)) = (grant.login_ms, grant.expires_at_ms) {
        node.log_out(&grant.user, issued_at_ms, expires_at_ms).await.map_err(|error| {
            tracing::error!(%error, "it is not known whether a logout was kept");
            HttpError::from(ErrorCode::Unavailable)
        })?;
    }
    let mut response = no_store(Json(serde_json::Map::new()).into_response());
    set_cookie(&mut response, &headers, "", 0);
    Ok(response)
}

/// A method of the use cases, the same as over the socket.
pub(super) async fn rpc(
    State(node): State<Arc<Node>>,
    Path(method): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, HttpError> {
    let grant = who(&node, &headers, Unsafe::Yes).await?;
    check_json(&headers)?;
    let data = if body.is_empty() { Payload::of(&serde_json::Map::new()) } else { payload(&body)? };
    let answer = node.stories.call(&caller(&grant), &method, &data).await.map_err(refused)?;
    let json = [(header::CONTENT_TYPE, "application/json")];
    Ok(no_store((json, answer.bytes()).into_response()))
}

#[derive(Deserialize)]
pub(super) struct ExportQuery {
    branch: Option<BranchId>,
}

/// A story as Markdown, to be kept as a file.
pub(super) async fn export(
    State(node): State<Arc<Node>>,
    Path(story): Path<StoryId>,
    Query(query): Query<ExportQuery>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let grant = who(&node, &headers, Unsafe::No).await?;
    let place = node.exports.clone().try_acquire_owned().map_err(|_| ErrorCode::Unavailable)?;
    let export = node.stories.export_markdown(&caller(&grant), &story, query.branch).await.map_err(refused)?;
    let disposition = format!("attachment; filename=\"{}\"", export.file_name);
    let disposition = HeaderValue::from_str(&disposition).map_err(|_| ErrorCode::Internal)?;
    let time = Duration::from_millis(node.settings.export_ms_max);
    let body = Body::new(Paced { text: export.text.into(), until: Instant::now() + time, _place: place });
    let mut response = no_store(body.into_response());
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/markdown; charset=utf-8"));
    headers.insert(header::CONTENT_DISPOSITION, disposition);
    Ok(response)
}

/// A long text that is handed out as fast as its reader takes it, in its time, and keeps its place until then: many readers that take
/// nothing must not hold many texts.
struct Paced {
    text: Bytes,
    until: Instant,
    _place: OwnedSemaphorePermit,
}

/// What is handed out at once, in bytes.
const PACED_BYTES: usize = 32_768;

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
        if self.text.is_empty() {
            return Poll::Ready(None);
        }
        if Instant::now() > self.until {
            return Poll::Ready(Some(Err(std::io::ErrorKind::TimedOut.into())));
        }
        let n = self.text.len().min(PACED_BYTES);
        Poll::Ready(Some(Ok(http_body::Frame::data(self.text.split_to(n)))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.text.len() as u64)
    }
}

/// Whether a request changes something.
#[derive(PartialEq, Eq)]
pub(super) enum Unsafe {
    Yes,
    No,
}

/// Who asks, by bearer token or by cookie with everything that a cookie needs beside it.
pub(super) async fn who(node: &Node, headers: &HeaderMap, unsafe_: Unsafe) -> Result<Grant, HttpError> {
    let now_ms = unix_ms();
    if let Some(token) = bearer(headers) {
        check_origin(node, headers, Credentials::Explicit)?;
        return match node.verify_connect(token, now_ms).await {
            TokenVerdict::Good(grant) if !grant.user.is_anonymous() => Ok(grant),
            TokenVerdict::Expired => Err(ErrorCode::TokenExpired.into()),
            TokenVerdict::Unknown => Err(ErrorCode::Unavailable.into()),
            TokenVerdict::Good(_) | TokenVerdict::Bad => Err(ErrorCode::Unauthorized.into()),
        };
    }
    let login = login_of(node, headers, now_ms).await?.ok_or(ErrorCode::Unauthorized)?;
    if unsafe_ == Unsafe::Yes {
        check_origin(node, headers, Credentials::Cookie)?;
        let csrf = headers.get(CSRF_HEADER).and_then(|value| value.to_str().ok()).unwrap_or("");
        if !node.auth.logins.csrf_matches(&login, csrf) {
            let message = "the X-CSRF-Token header is missing or not this login's; GET /app/me gives it";
            return Err(HttpError::new(StatusCode::FORBIDDEN, ErrorCode::PermissionDenied, message));
        }
    }
    Ok(login.grant())
}

/// The login that the browser's cookie stands for.
///
/// # Errors
/// [`ErrorCode::Unavailable`] when it is not known whether it was logged out.
pub(crate) async fn login_of(node: &Node, headers: &HeaderMap, now_ms: i64) -> Result<Option<Login>, ErrorCode> {
    let Some(value) = cookie(headers) else { return Ok(None) };
    match node.verify_login(value, now_ms).await {
        Err(LoginRefusal::Unknown) => Err(ErrorCode::Unavailable),
        verified => Ok(verified.ok()),
    }
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ").map(str::trim)
}

fn check_origin(node: &Node, headers: &HeaderMap, credentials: Credentials) -> Result<(), HttpError> {
    let origins = headers.get_all(header::ORIGIN).into_iter().map(HeaderValue::as_bytes);
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    node.origins.check(origins, host, credentials).map_err(|refusal| {
        node.metrics.refused_origins.inc();
        HttpError::new(StatusCode::FORBIDDEN, ErrorCode::PermissionDenied, refusal.to_string())
    })
}

/// Forms of other pages can send plain text without asking; JSON they cannot.
fn check_json(headers: &HeaderMap) -> Result<(), HttpError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    if kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    let message = "the body must be application/json";
    Err(HttpError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, ErrorCode::BadRequest, message))
}

pub(super) fn read_json<'a, T: Deserialize<'a>>(headers: &HeaderMap, body: &'a [u8]) -> Result<T, HttpError> {
    check_json(headers)?;
    serde_json::from_slice(body).map_err(|error| {
        HttpError::new(StatusCode::BAD_REQUEST, ErrorCode::BadRequest, format!("the body does not fit: {error}"))
    })
}

pub(super) fn payload(body: &[u8]) -> Result<Payload, HttpError> {
    Payload::parse(body).map_err(|bad| HttpError::new(StatusCode::BAD_REQUEST, ErrorCode::BadRequest, bad.to_string()))
}

pub(super) fn no_store(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// `Secure` where the page itself came by TLS, which a browser shows in `Origin`.
fn set_cookie(response: &mut Response, request: &HeaderMap, value: &str, max_age_s: i64) {
    let secure = request.get(header::ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    let secure = if secure { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={value}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{secure}");
    let cookie = HeaderValue::from_str(&cookie).expect("a login is letters, digits, dots and dashes");
    response.headers_mut().insert(header::SET_COOKIE, cookie);
}
