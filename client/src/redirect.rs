use reqwest::redirect::Policy;

/// A redirect policy that stays on the origin: a redirect elsewhere is not followed, its 3xx answer is the answer.
///
/// reqwest's own policy follows redirects to other hosts and takes every header along but a few that it knows to be
/// secret (`Authorization`, `Cookie`). It takes the session along, too. No middleware sees these hops, so no
/// [`Affinity`](crate::Affinity) can help: give the client this policy, or [`Policy::none`].
///
/// Ten hops are an error, as with reqwest's own policy.
///
/// ```
/// let client = reqwest::Client::builder().redirect(ingle_client::same_origin_redirects()).build()?;
/// # Ok::<_, reqwest::Error>(())
/// ```
#[must_use]
#[cfg_attr(docsrs, doc(cfg(feature = "reqwest")))]
pub fn same_origin_redirects() -> Policy {
    Policy::custom(|attempt| {
        let next = attempt.url().origin();
        if attempt.previous().iter().all(|url| url.origin() == next) {
            Policy::default().redirect(attempt)
        } else {
            attempt.stop()
        }
    })
}
