"""The words that judges use in their replies, in English and Chinese: labels, list formats, "nothing relevant"."""

import re
from collections.abc import Mapping

SUPPORT_LABELS: Mapping[str, float] = {
    **dict.fromkeys(("fully supported", "full support", "fully support", "supported", "completely supported"), 1.0),
    **dict.fromkeys(("完全支持", "完全得到支持", "充分支持", "全部支持", "完全被支持"), 1.0),
    **dict.fromkeys(("partially supported", "partial support", "partly supported", "partially support"), 0.5),
    **dict.fromkeys(("部分支持", "部分得到支持", "部分被支持"), 0.5),
    **dict.fromkeys(("no support", "not supported", "unsupported", "no supported", "not supported at all"), 0.0),
    **dict.fromkeys(("contradicted", "not supported (contradicted)", "fully unsupported"), 0.0),
    **dict.fromkeys(
        ("不支持", "没有支持", "无支持", "未支持", "不被支持", "未得到支持", "没有得到支持", "完全不支持"), 0.0
    ),
}
MET_LABELS: Mapping[str, float] = {
    **dict.fromkeys(("met", "fully met", "is met", "yes, met", "满足", "已满足", "完全满足"), 1.0),
    **dict.fromkeys(("not met", "unmet", "is not met", "no, not met", "partially met", "partly met"), 0.0),
    **dict.fromkeys(("不满足", "未满足", "没有满足", "部分满足"), 0.0),
}
RELEVANCE_LABELS: Mapping[str, float] = {
    **dict.fromkeys(("relevant", "is relevant", "相关", "有关"), 1.0),
    **dict.fromkeys(("irrelevant", "unrelevant", "not relevant", "is irrelevant", "不相关", "无关"), 0.0),
}
NEED_LABELS: Mapping[str, float] = {
    **dict.fromkeys(("needed", "citation needed", "is needed", "需要", "需要引用"), 1.0),
    **dict.fromkeys(("not needed", "no citation needed", "is not needed", "不需要", "不需要引用"), 0.0),
}
RATING_LABEL = re.compile(
    r"(\d{1,3}(?:\.\d{1,6})?)(?:\s{0,3}(?:/|out of|of)\s{0,3}10(?:\.0)?)?\s{0,3}(?:分|points?|pts)?", re.A
)
NUMBER = re.compile(r"[-+−~≈<>]?\s?\d")
NUMBER_WITH_SCALE = re.compile(r"\d\s{0,3}(?:/|out of|of)\s{0,3}10|\d\s{0,3}分")
OTHER_SCALE = re.compile(r"\W{0,3}(?:/|out of|of)\s{0,3}(?!10(?:\.0)?(?!\d|\.\d))\d")
RESEMBLES_SUPPORT = re.compile(
    r"support|contradict|refut|fully|partial|partly|mostly|unclear|unknown|insufficient|\bn/?a\b|^(?:yes|no|none|true|false)$"
    r"|支持|部分|完全|矛盾|无法|未知"
)
NO_STATEMENT = re.compile(
    r"(?:there (?:are|is) )?no (?:factual )?statements?(?: (?:found|in (?:the|this) (?:answer|response)))?"
    r"|(?:该|此|这个)?(?:回答|答案)?(?:中)?(?:没有|无)(?:任何)?(?:事实性?)?陈述"
)
LIST_ITEM = re.compile(r"[(]?(\d{1,4})[.):、）](?!\d)\s{0,8}(\S.*)")
CHECK_NUMBER = re.compile(r"^[ \t*_#(（]{0,8}(\d{1,4})[.):：、）](?!\d)[ \t*_]{0,8}", re.MULTILINE)
LIST_HEADING = re.compile(r"[^\n]{0,80}(?:statements?|facts|陈述)[^\n]{0,20}[:：\]]\W{0,4}", re.I)
LIST_MARKER = re.compile(r"^(?:[(（]?\d{1,4}[.)、）]|[-*•])\s{0,8}")
DECORATION = " \t\r\"'“”‘’`*#_>-"
EXTRACT_HEADING = re.compile(
    r"[\[【]?(?:relevant information|extracted information|(?:有关|相关)信息)[\]】]?\s{0,3}[:：]?", re.I
)
_TOPIC = (
    r"(?: (?:in|on|about|regarding|concerning|for|to|from|within|of|related to|relating to|with respect to)"
    r"(?: (?!(?:but|however|except|although|though|only|besides|yet|while|which|that|who|where|because)\b)"
    r"[^\W\d][\w'’]{0,40}){1,10}){0,3}"
)
NOTHING_EN = re.compile(
    r"(?:(?:there (?:is|was)|i (?:found|find|see|could find|can find)|"
    r"(?:this|the) (?:given |provided )?(?:part|passage|text|document|section|excerpt|chunk)(?: of the document)? "
    r"(?:contains|has|holds|provides|includes|offers|gives)) )?"
    r"(?:no (?:directly )?(?:relevant|related) (?:information|content|info)|no information (?:relevant|related))"
    r"(?:(?: (?:is|was|were|has been|could be|can be))?(?: (?:found|available|provided|present|given|contained)))?"
    rf"{_TOPIC}|nothing(?: is)? relevant|not relevant|none|n/a"
)
NOTHING_ZH = re.compile(
    r"(?:本|该|此|这个|这一)?(?:文档|文本|文章|片段|部分|段落|内容){0,2}(?:中|里|内)?"
    r"(?:没有|无|未|并无|并未|不含|不包含|未提供|未提及)(?:找到|发现|包含|提供|提及|含有)?(?:任何)?"
    r"(?:(?:与|和|跟)(?:该|此|这个)?(?:问题|查询|提问)(?:直接)?)?(?:直接)?(?:有关|相关|无关)?的?(?:信息|内容|资料)"
)
