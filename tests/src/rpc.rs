//! A JSON-RPC client that leaves answers as they come.

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::time::Duration;

/// One JSON-RPC endpoint over HTTP.
#[derive(Clone, Debug)]
pub struct Rpc {
    url: String,
    auth: Option<(String, String)>,
    http: reqwest::Client,
}

impl Rpc {
    /// A client of this URL.
    pub fn new(url: impl Into<String>) -> Self {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(30))
            .build()
            .expect("a client without TLS options always builds");
        Self { url: url.into(), auth: None, http }
    }

    /// The same with HTTP basic authentication.
    pub fn with_auth(mut self, user: &str, password: &str) -> Self {
        self.auth = Some((user.to_owned(), password.to_owned()));
        self
    }

    /// Where it points.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The result of a call.
    ///
    /// # Errors
    /// When there is no answer or when the answer is an error.
    pub async fn call(&self, method: &str, params: Value) -> Result<Value> {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let mut answer = self.post(request.to_string()).await.context(method.to_owned())?;
        match answer.get("error") {
            None | Some(Value::Null) => Ok(answer["result"].take()),
            Some(error) => bail!("{method}: {error}"),
        }
    }

    /// The whole answer to this body, whatever it is.
    ///
    /// # Errors
    /// When there is no answer or when it is not JSON.
    pub async fn post(&self, body: String) -> Result<Value> {
        let mut request =
            self.http.post(&self.url).header("content-type", "application/json").body(body);
        if let Some((user, password)) = &self.auth {
            request = request.basic_auth(user, Some(password));
        }
        let answer = request.send().await?.text().await?;
        serde_json::from_str(&answer).with_context(|| format!("not JSON: {answer}"))
    }
}
