//! Refuses answers that are not there as a whole.
//!
//! The SDK reads XML as it comes: where it ends early, what was read so far counts as all, so that ENIs seem to be gone. And where
//! an action has nothing to tell, its answer is not read at all.

use aws_smithy_runtime_api::{
    box_error::BoxError,
    client::{
        interceptors::{Intercept, context::AfterDeserializationInterceptorContextRef, dyn_dispatch_hint},
        runtime_components::RuntimeComponents,
    },
};
use aws_smithy_types::config_bag::ConfigBag;

/// Looks at each good answer once more.
#[derive(Debug)]
pub(crate) struct WholeAnswers;

#[dyn_dispatch_hint]
impl Intercept for WholeAnswers {
    fn name(&self) -> &'static str {
        "WholeAnswers"
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let bytes = context.response().body().bytes().unwrap_or_default();
        if context.output_or_error().is_err() || is_whole(&String::from_utf8_lossy(bytes)) {
            return Ok(());
        }
        let shown = String::from_utf8_lossy(bytes.get(..bytes.len().min(60)).unwrap_or(bytes)).into_owned();
        Err(format!("expected a whole XML answer, got {} bytes as `{shown}`", bytes.len()).into())
    }
}

/// Whether the text is one XML element, whose name ends as those of all EC2's answers do.
fn is_whole(text: &str) -> bool {
    let text = text.trim();
    let text = text.strip_prefix("<?xml").and_then(|rest| rest.split_once("?>")).map_or(text, |(_, rest)| rest.trim());
    let name = text.strip_prefix('<').and_then(|rest| rest.split([' ', '>', '/', '\n']).next()).unwrap_or_default();
    let closed = text.ends_with(&format!("</{name}>")) || (text.ends_with("/>") && text.matches('<').count() == 1);
    name.ends_with("Response") && closed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_begins_and_ends_with_the_same_name() {
        #[rustfmt::skip]
        let table = [
            ("<?xml version=\"1.0\"?>\n<AResponse xmlns=\"x\"><return>true</return></AResponse>\n", true),
            ("<AResponse></AResponse>",             true),
            ("<AResponse/>",                        true),
            ("<AResponse xmlns=\"x\"><a>1</a>",     false),
            ("<AResponse><a/>",                     false),
            ("<AResponse>",                         false),
            ("<AResponse></AResponse",              false),
            ("<?xml version=\"1.0\"?>",             false),
            ("<?xml version=",                      false),
            ("<html></html>",                       false),
            ("{\"a\":1}",                           false),
            ("",                                    false),
        ];
        for (text, wanted) in table {
            assert_eq!(is_whole(text), wanted, "{text}");
        }
    }
}
