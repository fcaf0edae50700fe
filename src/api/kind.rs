//! What a request asks of a backend, by its method and path: the one table of what is inference and what is not.
//!
//! Limits, queues, sessions, token counts, hints, latencies and keys all go by it. Only POST can be inference: a request
//! with another method is a query, except the few that change a server's state.
//!
//! Paths match by their end, so that a prefix of the server (`--api-prefix`, `--root-path`) makes no difference.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

use Kind::{Generation, Inference, Other, Query, StateChange};

/// What a request asks of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Text for a prompt that can be in the KV cache.
    Generation,
    /// A POST at a path that is not in the table. It is treated as a generation, except that hints do not judge it.
    #[default]
    Other,
    /// Other work of a model: embeddings, scores, audio, images. It leaves nothing that a later turn could use.
    Inference,
    /// An answer from what the server holds: lists, states, token counts, preflights. It takes no slot.
    Query,
    /// Changes the state of the one server that receives it.
    StateChange,
}

impl Kind {
    /// The kind of a request with this method and path.
    #[must_use]
    pub fn of(method: &Method, path: &str) -> Kind {
        let decoded = match path.contains('%') {
            true => percent_decode_str(path).decode_utf8_lossy(),
            false => Cow::Borrowed(path),
        };
        let path = decoded.trim_end_matches('/');
        let is_at = |pattern: &str| is_match(path, pattern);
        match *method {
            Method::POST => POSTS.iter().find(|(pattern, _)| is_at(pattern)).map_or(Other, |(_, kind)| *kind),
            Method::GET if STATE_CHANGES_BY_GET.iter().any(|pattern| is_at(pattern)) => StateChange,
            Method::DELETE if is_at("/api/delete") => StateChange,
            _ => Query,
        }
    }

    /// Whether it takes one of the places that limits count.
    #[must_use]
    pub fn takes_slot(self) -> bool {
        self != Query
    }

    /// Whether it leaves a prompt in a KV cache, and so says where a session is and how much is reused.
    #[must_use]
    pub fn generates(self) -> bool {
        matches!(self, Generation | Other)
    }
}

/// Whether a path ends with a pattern, in which `*` is one segment.
fn is_match(path: &str, pattern: &str) -> bool {
    // Most rows end here.
    let last = pattern.as_bytes().last();
    if last != Some(&b'*') && last != path.as_bytes().last() {
        return false;
    }
    let Some((before, after)) = pattern.split_once('*') else { return path.ends_with(pattern) };
    let Some(path) = path.strip_suffix(after) else { return false };
    path.rsplit_once('/').is_some_and(|(start, segment)| {
        !segment.is_empty() && before.strip_suffix('/').is_some_and(|before| start.ends_with(before))
    })
}

/// What a POST is, by the end of its path; the most frequent first. The paths are those of OpenAI, Anthropic, Gemini, Cohere,
/// llama-server, vLLM, SGLang, TGI and Ollama.
const POSTS: [(&str, Kind); 84] = [
    ("/chat/completions", Generation),
    ("/completions", Generation),
    ("/messages", Generation),
    ("/responses", Generation),
    ("/completion", Generation),
    ("/infill", Generation),
    ("/api/chat", Generation),
    ("/generate", Generation),
    ("/generate_stream", Generation),
    ("/responses/compact", Generation),
    ("/chat/completions/batch", Generation),
    (":generateContent", Generation),
    (":streamGenerateContent", Generation),
    ("/embeddings", Inference),
    ("/embedding", Inference),
    ("/embed", Inference),
    ("/embed_all", Inference),
    ("/embed_sparse", Inference),
    (":embedContent", Inference),
    (":batchEmbedContents", Inference),
    ("/encode", Inference),
    ("/rerank", Inference),
    ("/reranking", Inference),
    ("/score", Inference),
    ("/pooling", Inference),
    ("/classify", Inference),
    ("/predict", Inference),
    ("/similarity", Inference),
    ("/moderations", Inference),
    ("/audio/transcriptions", Inference),
    ("/audio/translations", Inference),
    ("/audio/speech", Inference),
    ("/images/generations", Inference),
    ("/images/edits", Inference),
    ("/images/variations", Inference),
    ("/videos", Inference),
    ("/tokenize", Query),
    ("/detokenize", Query),
    ("/derender", Query),
    ("/render", Query),
    ("/apply-template", Query),
    ("/messages/count_tokens", Query),
    ("/responses/input_tokens", Query),
    (":countTokens", Query),
    ("/chat/completions/control", Query),
    ("/responses/*/cancel", Query),
    ("/abort_request", Query),
    ("/abort_requests", Query),
    ("/api/show", Query),
    ("/models", Query),
    ("/health", Query),
    ("/ping", Query),
    ("/load_lora_adapter", StateChange),
    ("/unload_lora_adapter", StateChange),
    ("/lora-adapters", StateChange),
    ("/sleep", StateChange),
    ("/wake_up", StateChange),
    ("/pause", StateChange),
    ("/resume", StateChange),
    ("/pause_generation", StateChange),
    ("/continue_generation", StateChange),
    ("/reset_prefix_cache", StateChange),
    ("/reset_mm_cache", StateChange),
    ("/reset_encoder_cache", StateChange),
    ("/flush_cache", StateChange),
    ("/slots/*", StateChange),
    ("/props", StateChange),
    ("/models/load", StateChange),
    ("/models/unload", StateChange),
    ("/collective_rpc", StateChange),
    ("/scale_elastic_ep", StateChange),
    ("/start_profile", StateChange),
    ("/stop_profile", StateChange),
    ("/release_memory_occupation", StateChange),
    ("/resume_memory_occupation", StateChange),
    ("/update_weights", StateChange),
    ("/update_weights_from_disk", StateChange),
    ("/update_weights_from_tensor", StateChange),
    ("/update_weights_from_distributed", StateChange),
    ("/set_internal_state", StateChange),
    ("/api/pull", StateChange),
    ("/api/create", StateChange),
    ("/api/copy", StateChange),
    ("/api/push", StateChange),
];

/// What changes a server's state although it is a GET: SGLang accepts both.
const STATE_CHANGES_BY_GET: [&str; 5] =
    ["/flush_cache", "/start_profile", "/stop_profile", "/release_memory_occupation", "/resume_memory_occupation"];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn post(path: &str) -> Kind {
        Kind::of(&Method::POST, path)
    }

    #[test]
    fn generations_are_found_by_their_paths() {
        for path in [
            "/v1/chat/completions",
            "/v1/completions",
            "/chat/completions/",
            "/completion",
            "/v1/messages",
            "/anthropic/v1/messages",
            "/openai/v1/responses",
            "/infill",
            "/api/chat",
            "/api/generate",
            "/v1beta/models/gemma:streamGenerateContent",
        ] {
            assert_eq!(post(path), Generation, "{path}");
            assert!(post(path).takes_slot() && post(path).generates(), "{path}");
            assert_eq!(Kind::of(&Method::GET, path), Query, "{path}");
            assert_eq!(Kind::of(&Method::OPTIONS, path), Query, "{path}");
        }
    }

    #[test]
    fn other_work_of_a_model_takes_a_slot_only() {
        for path in [
            "/v1/embeddings",
            "/embedding",
            "/v2/rerank",
            "/v1/reranking",
            "/score",
            "/pooling",
            "/classify",
            "/v1/audio/transcriptions",
            "/v1/audio/speech",
            "/v1/images/generations",
        ] {
            assert_eq!(post(path), Inference, "{path}");
            assert!(post(path).takes_slot() && !post(path).generates(), "{path}");
        }
    }

    #[test]
    fn queries_take_no_slot() {
        for path in [
            "/tokenize",
            "/detokenize",
            "/apply-template",
            "/v1/messages/count_tokens",
            "/v1/responses/resp_1/cancel",
            "/v1/chat/completions/control",
        ] {
            assert_eq!(post(path), Query, "{path}");
        }
        for path in
            ["/v1/models", "/props", "/slots", "/health", "/metrics", "/version", "/lora-adapters", "/", "/ui.js"]
        {
            for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
                assert_eq!(Kind::of(&method, path), Query, "{method} {path}");
            }
        }
        assert!(!Query.takes_slot() && !Query.generates());
    }

    #[test]
    fn state_changes_are_found_in_every_spelling() {
        for path in [
            "/v1/load_lora_adapter",
            "/v1/unload_lora_adapter",
            "/sleep",
            "/sleep/",
            "/%73leep",
            "/prefix/wake_up",
            "/reset_prefix_cache",
            "/reset_mm_cache",
            "/lora-adapters",
            "/slots/0",
            "/slots/%30",
            "/props",
            "/pause",
            "/resume",
        ] {
            assert_eq!(post(path), StateChange, "{path}");
        }
        assert_eq!(Kind::of(&Method::GET, "/flush_cache"), StateChange);
        assert_eq!(Kind::of(&Method::DELETE, "/api/delete"), StateChange);
        for path in ["/sleepy", "/asleep", "/slots", "/v1/is_sleeping"] {
            assert_ne!(post(path), StateChange, "{path}");
        }
    }

    #[test]
    fn unknown_paths_have_a_default_by_method() {
        for path in ["/v1/new", "/", "", "/*", "/invocations"] {
            assert_eq!(post(path), Other, "{path}");
            assert_eq!(Kind::of(&Method::GET, path), Query, "{path}");
            assert_eq!(Kind::of(&Method::PUT, path), Query, "{path}");
        }
        assert!(Other.takes_slot() && Other.generates());
    }

    #[test]
    fn no_row_of_the_table_hides_another() {
        for (pattern, kind) in POSTS {
            assert_eq!(post(&pattern.replace('*', "0")), kind, "{pattern}");
        }
    }

    proptest! {
        /// Encoding a path differently does not change what it is.
        #[test]
        fn kind_does_not_depend_on_encoding(row in 0..POSTS.len(), at in 0usize..8, prefix in "(/[a-z]{1,5})?") {
            let path = POSTS[row].0.replace('*', "7");
            let at = at % path.len();
            // A slash that is encoded is part of a segment to some servers and a separator to others.
            prop_assume!(path.as_bytes()[at] != b'/');
            let encoded = format!("{prefix}{}%{:02x}{}", &path[..at], path.as_bytes()[at], &path[at + 1..]);
            prop_assert_eq!(post(&encoded), POSTS[row].1);
        }
    }
}
