//! Tags on the wire.

use super::{Wire, params::Params, xml::Xml};
use crate::{
    ApiError,
    action::{CreateTags, DeleteTags, DescribeTags, TagDescription},
    world::{Page, model::Tags},
};

impl Wire for CreateTags {
    fn read(params: &Params) -> Result<Self, ApiError> {
        Ok(Self { resources: params.required_list("ResourceId")?, tags: params.tags()? })
    }

    fn write((): &(), xml: &mut Xml) {
        xml.done();
    }
}

impl Wire for DeleteTags {
    fn read(params: &Params) -> Result<Self, ApiError> {
        let tag = |params: &Params| Ok((params.required("Key")?, params.owned("Value")));
        let tags = params.structures("Tag").iter().map(tag).collect::<Result<_, ApiError>>()?;
        Ok(Self { resources: params.required_list("ResourceId")?, tags })
    }

    fn write((): &(), xml: &mut Xml) {
        xml.done();
    }
}

impl Wire for DescribeTags {
    fn read(params: &Params) -> Result<Self, ApiError> {
        Ok(Self { filters: params.filters()?, paging: params.paging()? })
    }

    fn write(page: &Page<TagDescription>, xml: &mut Xml) {
        xml.list("tagSet", &page.items, |xml, tag| {
            xml.leaf("resourceId", &tag.resource);
            xml.leaf("resourceType", tag.kind);
            xml.leaf("key", &tag.key);
            xml.leaf("value", &tag.value);
        });
        xml.next_token(page.next_token.as_deref());
    }
}

/// Writes a thing's tags. No tags are an empty list, which every SDK reads as such.
pub(super) fn write_tags(tags: &Tags, xml: &mut Xml) {
    xml.list("tagSet", tags, |xml, (key, value)| {
        xml.leaf("key", key);
        xml.leaf("value", value);
    });
}
