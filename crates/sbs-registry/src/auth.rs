//! Logging in: Basic (RFC 7617), or tokens from a token server (the Docker registry token flow).

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use sbs_proto::{Credentials, Repository, SecretText};
use serde::Deserialize;
use tokio::time::Instant;
use url::Url;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::Session;
use super::error::{Fault, RegistryError, Remark};

/// What may be done in a repository.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Access {
    Pull,
    Push,
}

/// A repository and what is to be done in it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope<'a> {
    pub(super) repository: &'a Repository,
    pub(super) access: Access,
}

/// The credentials of a session and what was got for them.
pub(super) struct Login {
    credentials: Option<(String, SecretText)>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The registry asked for the user name and password themselves.
    basic: bool,
    tokens: HashMap<(String, Access), (HeaderValue, Instant)>,
}

/// How a registry wants its users to log in.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

impl Login {
    pub(super) fn new(credentials: Option<&Credentials>) -> Self {
        let copy = |credentials: &Credentials| {
            let password = SecretText::new(credentials.password.expose().to_owned());
            (credentials.user.clone(), password)
        };
        Self { credentials: credentials.map(copy), state: Mutex::default() }
    }

    /// Returns what is known to work, or `None` before the registry has asked.
    fn known(&self, scope: Scope<'_>) -> Option<HeaderValue> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.basic {
            return self.basic();
        }
        let key = (scope.repository.as_str().to_owned(), scope.access);
        let (token, until) = state.tokens.get(&key)?;
        (Instant::now() < *until).then(|| token.clone())
    }

    fn basic(&self) -> Option<HeaderValue> {
        let (user, password) = self.credentials.as_ref()?;
        let pair = Zeroizing::new(format!("{user}:{}", password.expose()));
        let text = Zeroizing::new(format!("Basic {}", STANDARD.encode(pair.as_bytes())));
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Login")
    }
}

impl Session {
    /// Returns the Authorization header that is known to work, if there is one.
    pub(super) fn authorization(&self, scope: Scope<'_>) -> Option<HeaderValue> {
        self.0.login.known(scope)
    }

    /// Answers the challenge of a 401: returns the Authorization header to try.
    pub(super) async fn authorize(
        &self,
        headers: &HeaderMap,
        scope: Scope<'_>,
    ) -> Result<HeaderValue, Fault> {
        match challenge(headers).ok_or_else(|| self.unauthorized())? {
            Challenge::Basic => {
                let value = self.0.login.basic().ok_or_else(|| self.unauthorized())?;
                self.0.login.state.lock().unwrap_or_else(PoisonError::into_inner).basic = true;
                Ok(value)
            }
            Challenge::Bearer { realm, service } => {
                let url = self.token_url(&realm, service.as_deref(), scope)?;
                self.fetch_token(url, scope).await
            }
        }
    }

    /// Returns the error of a login that failed.
    pub(super) fn unauthorized(&self) -> RegistryError {
        let what = match self.0.login.credentials {
            Some(_) => "the user name or password",
            None => "access without a user name and password",
        };
        RegistryError::Unauthorized { host: self.host().to_owned(), what }
    }

    /// Makes the address of a token request, if its host may have the credentials.
    ///
    /// A registry that may name any host could make us send them anywhere, or knock at doors of
    /// the network that we stand in.
    fn token_url(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Scope<'_>,
    ) -> Result<Url, RegistryError> {
        let refused = |shown: &str| RegistryError::RealmNotAllowed {
            host: self.host().to_owned(),
            realm: Remark::new(shown),
        };
        let mut url = Url::parse(realm).map_err(|_| refused("a place that is no URL"))?;
        let host = url.host_str().unwrap_or_default().to_owned();
        if url.scheme() != "https" {
            return Err(refused(&format!("{}://{host}", url.scheme())));
        }
        let plain = url.username().is_empty() && url.password().is_none();
        if !plain || !self.is_trusted(&url) {
            return Err(refused(&host));
        }
        url.set_fragment(None);
        let actions = match scope.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let mut query = url.query_pairs_mut();
        if let Some(service) = service {
            query.append_pair("service", service);
        }
        let (prefix, repository) = (&self.0.scope_prefix, scope.repository);
        query.append_pair("scope", &format!("repository:{prefix}{repository}:{actions}"));
        drop(query);
        Ok(url)
    }

    async fn fetch_token(&self, url: Url, scope: Scope<'_>) -> Result<HeaderValue, Fault> {
        let mut request = reqwest::Request::new(http::Method::GET, url);
        if let Some(basic) = self.0.login.basic() {
            request.headers_mut().insert(http::header::AUTHORIZATION, basic);
        }
        let response = self.exchange(&self.0.client.0.trusted, request, None).await?;
        let response = self.defer_if_busy(response)?;
        if response.status() != http::StatusCode::OK {
            return Err(self.refusal(response, "token").await);
        }
        let bytes = Zeroizing::new(self.read(response, "token", MAX_TOKEN_REPLY_BYTES).await?);
        let malformed = || self.malformed("a token reply without a token");
        let reply: TokenReply = serde_json::from_slice(&bytes).map_err(|_| malformed())?;
        let token = reply.token.as_deref().or(reply.access_token.as_deref());
        let token = token.filter(|token| !token.is_empty()).ok_or_else(malformed)?;
        let text = Zeroizing::new(format!("Bearer {token}"));
        let mut value = HeaderValue::from_str(&text).map_err(|_| malformed())?;
        value.set_sensitive(true);
        // The specification gives 60 seconds where nothing is said, and no less.
        let seconds = reply.expires_in.unwrap_or(60).clamp(60, MAX_TOKEN_SECONDS);
        let until = Instant::now() + Duration::from_secs(seconds * 9 / 10);
        let key = (scope.repository.as_str().to_owned(), scope.access);
        let mut state = self.0.login.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.tokens.insert(key, (value.clone(), until));
        Ok(value)
    }
}

#[derive(Deserialize, ZeroizeOnDrop)]
struct TokenReply {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// Returns the challenge that is answered: a token's if there is one, because a token is worth
/// less to whoever steals it.
fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let found: Vec<_> = texts.take(MAX_CHALLENGES).flat_map(parse_challenges).collect();
    let bearer = found.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
    bearer.or_else(|| found.first()).cloned()
}

/// Parses the challenges of one header (RFC 9110, 11.6.1); schemes that are not known are left out.
fn parse_challenges(text: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, HashMap<String, String>)> = Vec::new();
    let mut rest = text;
    while found.len() <= MAX_CHALLENGES {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=', '"']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if word.is_empty() {
            break;
        }
        match (after.trim_start().strip_prefix('='), found.last_mut()) {
            (Some(value), Some((_, parameters))) => {
                let Some((value, after)) = parse_value(value.trim_start()) else { break };
                parameters.entry(word.to_ascii_lowercase()).or_insert(value);
                rest = after;
            }
            (Some(_), None) => break,
            (None, _) => {
                found.push((word.to_ascii_lowercase(), HashMap::new()));
                rest = after;
            }
        }
    }
    let known = |(scheme, mut parameters): (String, HashMap<String, String>)| match &*scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => {
            let realm = parameters.remove("realm")?;
            Some(Challenge::Bearer { realm, service: parameters.remove("service") })
        }
        _ => None,
    };
    found.into_iter().filter_map(known).collect()
}

/// Parses a token or a quoted string; returns it and what follows.
fn parse_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', '\t', ',']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return Some((value.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => value.push(chars.next()?),
            c => value.push(c),
        }
    }
}

const MAX_CHALLENGES: usize = 8;
// Tokens of large identity providers reach some KiB.
const MAX_TOKEN_REPLY_BYTES: u64 = 64 * 1024;
const MAX_TOKEN_SECONDS: u64 = 3600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_challenges_as_registries_send_them() {
        let bearer = |realm: &str, service: Option<&str>| Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        };
        for (text, expected) in [
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io""#,
                vec![bearer("https://auth.docker.io/token", Some("registry.docker.io"))],
            ),
            (r#"Basic realm="Registry Realm""#, vec![Challenge::Basic]),
            (
                r#"bearer REALM = "https://a/b?c,d" , error="in\"valid", Basic realm=x"#,
                vec![bearer("https://a/b?c,d", None), Challenge::Basic],
            ),
            (
                "Negotiate, Basic, Bearer realm=https://a",
                vec![Challenge::Basic, bearer("https://a", None)],
            ),
            (r#"Bearer service="x""#, vec![]),
            (r#"Bearer realm="unclosed"#, vec![]),
            ("realm=x", vec![]),
            ("", vec![]),
            ("=,=\"", vec![]),
        ] {
            assert_eq!(parse_challenges(text), expected, "{text}");
        }
    }

    #[test]
    fn a_token_is_preferred_over_the_password() {
        let mut headers = HeaderMap::new();
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=x"));
        headers.append(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"https://a\""));
        assert!(matches!(challenge(&headers), Some(Challenge::Bearer { .. })));
    }

    #[test]
    fn an_endless_header_ends() {
        assert!(parse_challenges(&"a ".repeat(100_000)).is_empty());
        assert!(parse_challenges(&format!("Basic {}", "a=b,".repeat(10_000))).len() == 1);
    }
}
