//! `/`: the status page: four files, nothing from elsewhere, no data in the HTML.

use http::header::{self, HeaderValue};

use super::{Answer, content, not_found};

/// The part of the page with this path. A browser takes nothing for the page from elsewhere, and runs nothing that
/// stands in its text.
pub(super) fn part(path: &str) -> Answer {
    let mut answer = match path {
        "/" => content("text/html; charset=utf-8", HTML.to_owned()),
        "/page.css" => content("text/css; charset=utf-8", STYLE.to_owned()),
        "/page.js" => content("text/javascript; charset=utf-8", SCRIPT.to_owned()),
        "/charts.js" => content("text/javascript; charset=utf-8", CHARTS.to_owned()),
        _ => return not_found(),
    };
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answer
}

const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const CHARTS: &str = include_str!("charts.js");
/// Everything from this listener, nothing inline; `data:` is the empty icon.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_finds_every_element_that_it_writes_to() {
        let ids: Vec<&str> = SCRIPT
            .split("byId(\"")
            .chain(CHARTS.split("byId(\"").skip(1))
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        assert!(ids.len() > 10, "{ids:?}");
        for id in ids {
            assert_eq!(HTML.matches(&format!("id=\"{id}\"")).count(), 1, "{id}");
        }
    }

    #[test]
    fn data_never_becomes_markup() {
        for way in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("] {
            assert!(!SCRIPT.contains(way) && !CHARTS.contains(way), "{way}");
        }
    }

    #[test]
    fn the_page_obeys_its_own_policy() {
        for foreign in ["http:", "https:", "src=\"//", "style=", "<style", "onclick", "@import"] {
            assert!(!HTML.contains(foreign) && !STYLE.contains(foreign), "{foreign}");
        }
        assert!(!SCRIPT.contains("http"), "the script asks this listener only");
        assert_eq!(CHARTS.matches("http").count(), CHARTS.matches("\"http://www.w3.org/2000/svg\"").count());
        assert_eq!(HTML.matches("<script").count(), HTML.matches(".js\" defer></script>").count());
        for path in ["/", "/page.css", "/page.js", "/charts.js"] {
            let policy = part(path).headers()[header::CONTENT_SECURITY_POLICY].clone();
            assert!(policy.to_str().unwrap().starts_with("default-src 'none'"), "{path}");
        }
    }

    #[test]
    fn without_scripts_there_is_a_way_to_the_figures() {
        let (_, rest) = HTML.split_once("<noscript>").unwrap();
        assert!(rest.split("</noscript>").next().unwrap().contains("href=\"backends\""));
    }
}
