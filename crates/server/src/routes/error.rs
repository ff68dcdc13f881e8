//! How a refusal looks over HTTP: the same codes as on the socket, with a fitting status.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use talewire_proto::ErrorCode;
use talewire_proto::session::Refused;

/// A refusal on its way out.
#[derive(Debug)]
pub(crate) struct HttpError {
    status: StatusCode,
    code: ErrorCode,
    message: Option<String>,
    retry_after: Option<Duration>,
}

impl HttpError {
    pub(crate) fn new(status: StatusCode, code: ErrorCode, message: impl Into<String>) -> Self {
        Self { status, code, message: Some(message.into()), retry_after: None }
    }

    pub(crate) fn too_many(wait: Duration) -> Self {
        let message = "too many requests from this address; try again later".to_owned();
        let code = ErrorCode::TooManyRequests;
        Self { status: StatusCode::TOO_MANY_REQUESTS, code, message: Some(message), retry_after: Some(wait) }
    }
}

impl HttpError {
    pub(crate) fn code(&self) -> ErrorCode {
        self.code
    }
}

impl From<ErrorCode> for HttpError {
    fn from(code: ErrorCode) -> Self {
        Refused::from(code).into()
    }
}

impl From<Refused> for HttpError {
    fn from(refused: Refused) -> Self {
        let Refused { code, message } = refused;
        let status = match code {
            ErrorCode::Unauthorized | ErrorCode::TokenExpired | ErrorCode::Expired => StatusCode::UNAUTHORIZED,
            ErrorCode::PermissionDenied => StatusCode::FORBIDDEN,
            ErrorCode::UnknownChannel | ErrorCode::MethodNotFound | ErrorCode::NotFound | ErrorCode::NotAvailable => {
                StatusCode::NOT_FOUND
            }
            ErrorCode::BadRequest => StatusCode::BAD_REQUEST,
            ErrorCode::BadText => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorCode::BadInvite => StatusCode::GONE,
            ErrorCode::AlreadySubscribed
            | ErrorCode::GenerationOpen
            | ErrorCode::LimitExceeded
            | ErrorCode::UnrecoverablePosition => StatusCode::CONFLICT,
            ErrorCode::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let retry_after = code.temporary().then_some(Duration::from_secs(2));
        Self { status, code, message, retry_after }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    error: Inner<'a>,
}

#[derive(Serialize)]
struct Inner<'a> {
    code: u32,
    name: &'static str,
    message: &'a str,
}

impl HttpError {
    /// Status, seconds after which to come again, and the body, for who writes the answer by hand.
    pub(crate) fn parts(&self) -> (StatusCode, Option<u64>, Vec<u8>) {
        let message = self.message.as_deref().unwrap_or(self.code.text());
        let error = Inner { code: self.code.code(), name: self.code.text(), message };
        let body = serde_json::to_vec(&Body { error }).expect("our own types are written as JSON");
        let retry_after_s = self.retry_after.map(|wait| (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1));
        (self.status, retry_after_s, body)
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let (status, retry_after_s, body) = self.parts();
        let kind = [(header::CONTENT_TYPE, "application/json")];
        let mut response = (status, kind, body).into_response();
        if let Some(seconds) = retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
