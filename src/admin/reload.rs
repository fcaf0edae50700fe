//! `POST /reload`: how it ended, as JSON.

use http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, as_json, error};
use crate::config::Errors;
use crate::gateway::Gateway;
use crate::reload::{Outcome, Report};

/// Reloads the config. `?max_moved=SHARE` stands in for `reload.max_moved` this once.
pub(super) async fn reload(gateway: &Gateway, query: &str) -> Answer {
    let mut pairs = query.split('&').filter(|pair| !pair.is_empty());
    if pairs.clone().any(|pair| !pair.starts_with("max_moved=")) {
        return error(StatusCode::BAD_REQUEST, "unknown_parameter", "The only parameter is max_moved, such as 50%25.");
    }
    let max_moved = match pairs.find_map(|pair| pair.strip_prefix("max_moved=")).map(share) {
        Some(None) => return error(StatusCode::BAD_REQUEST, "invalid_share", "max_moved is from 0% to 100%."),
        Some(share) => share,
        None => None,
    };
    let outcome = gateway.orders.reload(max_moved).await;
    let said = outcome.to_string();
    match outcome {
        Outcome::Done(report) => as_json(StatusCode::OK, &told("ok", &report)),
        Outcome::Invalid(errors) => {
            let mut answer = failed("invalid_config", &said);
            answer["errors"] = listed(&errors);
            as_json(StatusCode::UNPROCESSABLE_ENTITY, &answer)
        }
        Outcome::Refused { report, .. } => {
            let mut answer = told("error", &report);
            answer["error"] = failed("moves_too_many", &said)["error"].take();
            as_json(StatusCode::CONFLICT, &answer)
        }
        Outcome::Failed(_) => as_json(StatusCode::CONFLICT, &failed("not_in_force", &said)),
    }
}

fn told(result: &str, report: &Report) -> Value {
    json!({"result": result, "changes": report})
}

fn failed(code: &str, message: &str) -> Value {
    json!({"result": "error", "error": {"message": message, "type": "invalid_request_error", "code": code}})
}

fn listed(errors: &Errors) -> Value {
    let each = |error: &crate::config::ConfigError| {
        let position = error.position;
        json!({
            "line": position.map(|at| at.line),
            "column": position.map(|at| at.column),
            "key": error.path,
            "message": error.message,
        })
    };
    errors.iter().map(each).collect()
}

/// `10%`, or `10%25` as a URL has it.
fn share(text: &str) -> Option<f64> {
    let percent: f64 = text.strip_suffix("%25").or_else(|| text.strip_suffix('%'))?.parse().ok()?;
    (0.0..=100.0).contains(&percent).then_some(percent / 100.0)
}
