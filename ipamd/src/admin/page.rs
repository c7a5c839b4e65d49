//! The status page: one HTML file, in the binary, with everything that it needs.

use std::hash::{BuildHasher, RandomState};

use axum::{
    http::header,
    response::{Html, IntoResponse, Response},
};

const PAGE: &str = include_str!("page.html");

/// Stands in the file where each answer has a number of its own, without which a browser runs no script and takes no style.
const NONCE: &str = "NONCE";

/// Shows the page. It holds no name from outside: the script fills it with text, never with HTML.
pub(super) async fn show() -> Response {
    // The system's randomness, by the one way to it that the standard library has.
    let nonce = format!("{:016x}", RandomState::new().hash_one(NONCE));
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    ([(header::CONTENT_SECURITY_POLICY, policy)], Html(PAGE.replace(NONCE, &nonce))).into_response()
}
