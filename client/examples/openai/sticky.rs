//! All that async-openai needs: it asks its `Config` for headers once per request, in the code that makes the request.

use async_openai::config::Config;
use http::uri::InvalidUri;
use http::{HeaderMap, Uri};
use ingle_client::Affinity;
use secrecy::SecretString;

/// Any `Config`, with the session's header added.
#[derive(Clone, Debug)]
pub(crate) struct Sticky<C> {
    config: C,
    base: Uri,
    affinity: Affinity,
}

impl<C: Config> Sticky<C> {
    pub(crate) fn new(config: C, affinity: Affinity) -> Result<Sticky<C>, InvalidUri> {
        let base = config.api_base().parse()?;
        Ok(Sticky { config, base, affinity })
    }
}

impl<C: Config> Config for Sticky<C> {
    fn headers(&self) -> HeaderMap {
        let mut headers = self.config.headers();
        self.affinity.apply(&self.base, &mut headers);
        headers
    }

    fn url(&self, path: &str) -> String {
        self.config.url(path)
    }

    fn query(&self) -> Vec<(&str, &str)> {
        self.config.query()
    }

    fn api_base(&self) -> &str {
        self.config.api_base()
    }

    fn api_key(&self) -> &SecretString {
        self.config.api_key()
    }
}
