//! The token that stands between the machine's users and `admin_*`.

use crate::keys::read_small;
use jsonrpsee::{
    core::BoxError,
    server::{HttpBody, HttpRequest, HttpResponse},
};
use std::{
    fs,
    future::{Future, ready},
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use subtle::ConstantTimeEq as _;
use tower::Service;

/// No token is shorter: 128 bits in hexadecimal.
const SHORTEST: usize = 32;

/// Why a token file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It can be neither read nor made.
    #[error("cannot use the token file {path}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Others on the machine can read it.
    #[error("the token file {0} is readable by others; run: chmod 600 {0}")]
    Permissions(String),
    /// Too short, or not one word.
    #[error(
        "the token file {0} does not hold a token: one line of at least {SHORTEST} letters and digits is \
         expected; without the file a fresh one is made"
    )]
    Malformed(String),
}

/// What a request has to show. Its content reaches no log and no error.
#[derive(Clone)]
pub struct Token(Arc<str>);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Token {
    /// The token in a file that only its owner can read. A file that is not there is made, with a fresh
    /// token.
    ///
    /// # Errors
    /// When the file cannot be used.
    pub fn open(path: &Path) -> Result<Self, TokenError> {
        let shown = || path.display().to_string();
        let failed = |source| TokenError::File { path: shown(), source };
        match fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Ok(mut file) => {
                let token = hex::encode(rand::random::<[u8; 32]>());
                writeln!(file, "{token}").and_then(|()| file.sync_all()).map_err(failed)?;
                tracing::info!(path = shown(), "made a token for admin_*");
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error)),
        }
        let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(TokenError::Permissions(shown()));
        }
        let text = read_small(path).map_err(failed)?;
        let token = text.trim();
        if token.len() < SHORTEST || !token.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(TokenError::Malformed(shown()));
        }
        Ok(Self(token.into()))
    }

    /// Whether a request shows it (RFC 6750, section 2.1). How long this takes says nothing about it.
    fn admits(&self, request: &HttpRequest) -> bool {
        let header = request.headers().get("authorization").map(|value| value.as_bytes());
        let Some((scheme, shown)) = header.and_then(|value| value.split_at_checked(7)) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(shown.ct_eq(self.0.as_bytes()))
    }
}

/// Answers 401 to requests, those for WebSocket connections included, that do not show the token.
#[derive(Clone, Debug)]
pub(super) struct Guarded<S> {
    pub(super) inner: S,
    pub(super) token: Token,
}

impl<S> Service<HttpRequest> for Guarded<S>
where
    S: Service<HttpRequest, Response = HttpResponse, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = HttpResponse;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: HttpRequest) -> Self::Future {
        if self.token.admits(&request) {
            return Box::pin(self.inner.call(request));
        }
        Box::pin(ready(unauthorized()))
    }
}

fn unauthorized() -> Result<HttpResponse, BoxError> {
    let mut response = HttpResponse::new(HttpBody::from("a bearer token is needed\n"));
    *response.status_mut() = 401.try_into()?;
    response.headers_mut().insert("www-authenticate", "Bearer".parse()?);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_readable_by_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let token = Token::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(token.0.len(), 64);
        assert_eq!(Token::open(&path).unwrap().0, token.0);
        assert_ne!(Token::open(&dir.path().join("other")).unwrap().0, token.0);
        assert_eq!(format!("{token:?}"), "Token(..)");
    }

    #[test]
    fn a_token_open_to_others_or_too_short_is_refused_without_showing_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let _ = Token::open(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Token::open(&path), Err(TokenError::Permissions(_))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for text in ["", "secret", "two words that are longer than thirty-two letters"] {
            fs::write(&path, text).unwrap();
            let error = Token::open(&path).unwrap_err();
            assert!(matches!(error, TokenError::Malformed(_)), "{error}");
            assert!(text.is_empty() || !error.to_string().contains(text));
        }
    }
}
