"""The Chinese words."""

WORDS = {
    # Values of the tables' columns, and names of metrics
    "says.better": "更好",
    "says.worse": "更差",
    "says.as good": "相当",
    "says.can't tell": "无法判断",
    "outcome.improved": "变好",
    "outcome.worse": "变差",
    "outcome.unchanged": "没有变化",
    "outcome.changed": "有变化",
    "split.held_out": "留出",
    "split.named": "指定",
    "family.all": "全部",
    "family.other": "其他",
    "metric.exact": "完全匹配",
    "metric.content": "内容（不论形式）",
    "metric.chrf": "chrF",
    "metric.bleu": "BLEU",
    "metric.rouge_l": "ROUGE-L",
    "metric.words": "长度（词数）",
    "metric.box": "含有框",
    "metric.empty": "空回答",
    "metric.repeated": "自我重复",
    "metric.cut": "在 max_new_tokens 处截断",
    "metric.tokens": "token 数",
    "metric.seconds": "秒数",
    "metric.tokens_per_second": "每秒 token 数",
    # Numbers
    "number.seconds": "{n} 秒",
    "number.minutes": "{n} 分钟",
    "number.hours": "{n} 小时",
    "number.interval": "{difference}（{low} 至 {high}）",
    "number.ci": "{confidence} 置信区间",
    "number.margin": "一百分里的 {points} 分",
    "number.points": "个百分点",
    "list.comma": "、",
    "list.and": "和",
    "list.semicolon": "；",
    # The headline. `part` is one of headline.part.*, or nothing.
    "headline.unknown": "微调改变了 {changed} 的回答",
    "headline.unknown_text": "{place}问题都没有参考答案，因此无法判断是变好还是变差。",
    "headline.unchanged": "没有差别：没有一个回答发生变化",
    "headline.exact.better": "微调使{place}问题完全答对的比例从 {before} 升到 {after}{part}",
    "headline.exact.worse": "微调使{place}问题的回答变差：完全答对的比例从 {before} 降到 {after}{part}",
    "headline.exact.as good": "与微调前相当：完全答对的比例之前为 {before}，之后为 {after}{part}",
    "headline.exact.can't tell": "看不出差别：完全答对的比例之前为 {before}，之后为 {after}{part}",
    "headline.metric.better": "微调使{place}问题的{metric}从 {before} 变为 {after}，更好{part}",
    "headline.metric.worse": "微调使{place}问题的回答变差：{metric}从 {before} 变为 {after}{part}",
    "headline.metric.as good": "与微调前相当：{metric}之前为 {before}，之后为 {after}{part}",
    "headline.metric.can't tell": "看不出差别：{metric}之前为 {before}，之后为 {after}{part}",
    "headline.text": (
        "{place}问题的{metric}：{before} → {after}（n = {n} 个问题，涉及 {pictures} 张图片；差值及 {confidence} "
        "置信区间为 {span}{points}，校正后的 p {p}）。{changed} 的回答发生了变化。"
    ),
    "headline.content": (
        "参考答案里的关键词、数字和框，不论以什么形式，微调前的回答包含了 {before}，微调后包含了 {after}。"
    ),
    "headline.part.form": "：变的是回答的形式",
    "headline.part.form_only": "：只有形式变了",
    "headline.part.better": "：内容变好了",
    "headline.part.worse": "：内容变差了",
    "headline.form": "形式变了：用框来指出位置的回答，微调前占 {before}，微调后占 {after}。",
    "headline.form_open": (
        "用框指出位置的回答不必用文字说出模型所知道的，因此这些回答说明不了差别中有多少是新知识、有多少只是换了一种答法。"
    ),
    "headline.content_as_good": "两者的内容相当。",
    "headline.content_open": "内容是否有变化，无法判断。",
    # The facts beside it
    "facts.model": "模型",
    "facts.model_text": "{name}，{millions}M 参数",
    "facts.data": "数据",
    "facts.data_text": "{pictures} 张图片上的 {conversations} 段对话；另留出 {held_out} 张图片",
    "facts.dropped": "；{records} 条记录中有 {dropped} 条被舍弃",
    "facts.fewer": "；留出问题 {questions} 个，少于要求的 {asked} 个",
    "facts.data_elsewhere": "{questions} 个留出问题；模型用什么数据训练，这里无从得知",
    "facts.settings_elsewhere": "模型在别处训练，设置无从得知",
    "facts.settings": "设置",
    "facts.settings_text": "迭代 {iterations} 次，每次 {batch} 条，学习率 {rate}（{style}），{frozen}",
    "facts.frozen": "冻结：{parts}",
    "facts.nothing_frozen": "没有冻结的部分",
    "facts.part.vision_encoder": "视觉编码器",
    "facts.part.vision_projector": "视觉投影层",
    "facts.engine": "引擎",
    "facts.engine_text": "{engine}，设备 {device}，{precision}；torch {torch}，transformers {transformers}",
    "facts.its_device": "由引擎选定",
    "facts.machine": "机器",
    "facts.machine_text": "{processor}，{cores} 核，{memory} GiB",
    # The page's frame
    "page.title": "微调带来了什么 · mindtune",
    "page.tagline": "微调带来了什么",
    "page.skip": "跳到正文",
    "page.sections": "各部分",
    "page.experiments": "实验",
    "page.sweep": "扫描",
    "page.seeing": "看的还是猜的",
    "page.families": "按问题类别",
    "page.metrics": "指标",
    "page.training": "训练",
    "page.answers": "回答",
    "page.provenance": "来源",
    "page.best": "{n} 个实验中最好的：{best}",
    "page.elsewhere": "在别处训练、在此仅作比较：{names}",
    "page.scroll": "右侧还有内容，可左右滑动表格 →",
    "page.separator": "：",
    # Columns and words of several tables
    "table.experiment": "实验",
    "table.before": "微调前",
    "table.after": "微调后",
    "table.p": "校正后的 p",
    "table.in_words": "结论",
    "table.points": "百分点（{ci}）",
    "table.difference": "差值（{ci}）",
    "table.nothing": "无",
    # The example
    "example.alt": "问题所问的图片 {name}",
    "example.seen_why": "训练见过这张图片：回答可能只是记住的",
    "example.held_out": "留出",
    "example.not_in_training": "不在训练集中",
    "example.unknown": "不知训练是否见过",
    "example.frame_html": "方框是“微调前”的回答所指的位置。",
    # The experiments' ranking
    "ranking.title": "各实验，最好的在前",
    "ranking.note": (
        "按微调后回答的{primary}排列。针对所有实验两两比较校正后的 p 低于 {level} 且区间不含零，才说“更差”；整个区间都在"
        "{margin}以内，说“相当”；其余说“无法判断”。第一名是从几个中挑出的最好的，因此看起来会比实际略好。"
    ),
    "ranking.label": "各实验的排名",
    "ranking.differs": "不同之处",
    "ranking.behind": "落后第一名（{ci}）",
    "ranking.held_out_loss": "留出损失",
    "ranking.beside": "与第一名相比",
    "ranking.first": "第一",
    "ranking.other_questions": "问题不同",
    # 多次训练：种子、参数，以及出了问题的训练
    "sweep.title": "随种子与参数的变化",
    "sweep.note_html": (
        "除 <code>train.order_seed</code> 和 <code>train.seed</code> 外设置完全相同的训练合为一行：微调后{primary}的均值，"
        "以及各次训练之间的标准差。最终权重相同的训练只算一次；发散的训练不计入任何数字。本页其他地方的区间和结论说的是"
        "拿别的问题去问同样这些模型，这里的离散程度说的是换一次训练。"
    ),
    "sweep.label": "各种子的均值与离散程度",
    "sweep.trainings": "不同的训练",
    "sweep.mean": "均值",
    "sweep.deviation": "标准差",
    "sweep.range": "最低到最高",
    "sweep.span": "{low} 到 {high}",
    "sweep.rose": "损失上升",
    "sweep.diverged": "发散",
    "sweep.diverged_one": "发散",
    "sweep.plot": "微调后{primary}随各个被改变的数值的变化；具体数值见表",
    "course.diverged": "发散",
    "course.rose": "损失上升",
    "course.no_model": "没有模型",
    "course.note": (
        "“发散”：损失已不是数，这样的训练没有模型，也没有回答。“损失上升”：最后十分之一迭代（至少五次）的平均损失高于最初十分之一，"
        "且超出三个标准误。"
    ),
    # The same questions with other pictures
    "seeing.title": "哪些是看出来的，哪些是猜的",
    "seeing.note": (
        "把留出问题换上同样大小的灰色图片或这组问题里的另一张图片再问一遍，得分均按主要指标{primary}计算。“看出来的”等于看自己的图片时的前后"
        "差值减去换图后的前后差值，附 {confidence} 区间，即靠看图得来的提高；其余部分不看对的图片也能得到：来自问题本身、常见的答案或回答的形式。"
    ),
    "seeing.label": "换上别的图片问同样的问题，{name}",
    "seeing.own_before": "自己的图片：微调前",
    "seeing.own_after": "微调后",
    "seeing.blind_before": "灰色图片：微调前",
    "seeing.blind_after": "微调后",
    "seeing.shuffled_before": "另一张图片：微调前",
    "seeing.shuffled_after": "微调后",
    "seeing.seen": "看出来的（{ci}）",
    "seeing.line": (
        "微调后的{metric}：看自己的图片时为 {own}，{others}。在 {difference}{points}的差值中，离不开图片的部分："
        "{parts}。"
    ),
    "seeing.after.blind": "换成灰色图片时为 {value}",
    "seeing.after.shuffled": "换成另一张图片时为 {value}",
    "seeing.part.blind": "与灰色图片相比 {seen}",
    "seeing.part.shuffled": "与另一张图片相比 {seen}",
    # Kinds of question
    "families.title": "各类问题的答对情况",
    "families.note": (
        "规范化后的完全匹配；细线是 {confidence} 区间。n 为问题数。同一张图片上的问题彼此相关，差值的区间已考虑这一点。"
        "“内容”是参考答案里的关键词、数字和框被回答包含的比例，不论形式。p 和结论针对所有实验、问题类别和参与判断的指标"
        "（{judged}）一并校正。"
    ),
    "families.label": "各类问题的答对情况，{name}",
    "families.family": "类别",
    "families.bars": "微调前后",
    "families.content_before": "内容：微调前",
    "families.content_after": "微调后",
    "families.none": "没有一个问题有参考答案。",
    # Every metric
    "metrics.title": "全部指标",
    "metrics.note": (
        "统计全部留出问题；没有留出时，统计全部指定问题。chrF、BLEU 和 ROUGE-L 是各回答的平均值，0 到 100。主要指标是"
        "{primary}，在查看任何回答之前就已定下。只有{judged}有结论：校正后的 p 低于 {level} 且区间不含零，说“更好”或"
        "“更差”；整个区间都在{margin}以内，说“相当”；其余说“无法判断”。其他指标仅供查看。时间为中位数。"
    ),
    "metrics.label": "全部指标，{name}",
    "metrics.metric": "指标",
    "metrics.primary": "（主要）",
    "metrics.median": "（中位数）",
    # The training, and its curves
    "training.title": "训练",
    "training.elsewhere": "在别处训练，没有曲线：{names}。",
    "training.curves": "损失、留出损失、学习率和每次迭代秒数的曲线；最终数值见下表",
    "training.label": "训练的最终数值",
    "training.iterations": "迭代次数",
    "training.loss": "最终损失",
    "training.held_out_loss": "最终留出损失",
    "training.seconds": "每次迭代秒数（中位数）",
    "curves.loss": "损失",
    "curves.loss_dots": "损失（圆点：留出）",
    "curves.training": "训练",
    "curves.held_out": "留出",
    "curves.rate": "学习率",
    "curves.seconds": "每次迭代秒数",
    "curves.iteration": "迭代",
    # The gallery
    "answers.title": "全部回答",
    "answers.noscript": "这份列表需要页面自带的脚本，而脚本已被禁用。全部回答见下方的 compare.csv。",
    "answers.search": "搜索",
    "answers.search_where": "在问题、参考答案和回答中",
    "answers.outcome": "结果",
    "answers.family": "类别",
    "answers.split": "划分",
    "answers.experiment": "实验",
    "answers.all": "全部",
    "answers.sort": "排序",
    "answers.order": "按提问顺序",
    "answers.gain": "改进最大的在前",
    "answers.loss": "退步最大的在前",
    "answers.worst": "微调后 chrF 最低的在前",
    "answers.longest": "微调后回答最长的在前",
    "answers.marks_html": (
        '<mark class="off">带标记的词</mark>没有按此顺序出现在参考答案中；没有参考答案时，则是没有出现在另一个回答中。'
    ),
    "answers.more": "显示更多",
    "answers.close": "关闭",
    "answers.previous": "← 上一个",
    "answers.next": "下一个 →",
    # Words of the page and of its script
    "script.before": "微调前",
    "script.after": "微调后",
    "script.reference": "参考答案",
    "script.blind_after": "微调后，看灰色图片",
    "script.shuffled_after": "微调后，看另一张图片",
    "script.no_answer": "（没有回答）",
    "script.no_reference": "（没有参考答案）",
    "script.same": "与微调后的回答相同",
    "script.seen": "训练时见过",
    "script.right": "完全答对",
    "script.absent": "为控制页面大小，没有放入 {name}",
    "script.picture": "图片 {name}",
    "script.open": "打开 {names}：{prompt}",
    "script.separator": "、",
    "script.count": "{chosen} 个回答（共 {total} 个），微调后完全答对 {right} 个；已显示 {shown} 个。",
    "script.nothing_fits": "没有符合条件的回答。请清空搜索，或选“全部”。",
    "script.likeness": "chrF：微调前 {before}，微调后 {after}。",
    # Where everything comes from
    "provenance.title": "来源",
    "provenance.tables": "本页所依据的表格：",
    "provenance.summary": "{name}：软件、机器、校验和、时间",
    "provenance.label": "{name} 的来源",
    "provenance.workflow": "流水线",
    "provenance.commit_html": "提交 <code>{commit}</code>",
    "provenance.dirty": "，有未提交的改动",
    "provenance.no_commit": "不在 git 检出目录中",
    "provenance.machine": "机器",
    "provenance.machine_text": "{platform}；{processor}，{cores} 核，{memory} GiB",
    "provenance.packages": "软件包",
    "provenance.instructions": "指令数据",
    "provenance.pictures": "图片",
    "provenance.pictures_text": "{path}，{n} 个文件",
    "provenance.names_and_sizes": "（文件名和大小）",
    "provenance.base": "基座权重",
    "provenance.base_text": "{name}，{n} 个参数",
    "provenance.tuned": "微调后的权重",
    "provenance.elsewhere": "在别处训练：{path}",
    "provenance.seeds": "随机种子",
    "provenance.time": "各规则用时",
    "provenance.not_measured": "没有测量",
    "provenance.settings": "{name}：全部设置",
    "provenance.settings_label": "{name} 的设置",
    # What can't be concluded
    "reading.title": "不能得出的结论",
    "reading.elsewhere": (
        "在别处训练的模型（{names}）用过哪些数据，这里无从得知。如果其中就有这些图片或问题，回答可能只是记住的，换成别的图片就会更差。"
    ),
    "reading.source": "留出的图片与训练图片来源相同。换成别的图片是否一样好，这里没有说明。",
    "reading.seed_html": (
        "每个实验只用一个种子训练了一次。换个种子会差多少，这里没有说明；对 <code>train.order_seed</code> 做一组实验就能看到。"
    ),
    "reading.seeds_html": (
        "结论只针对这几次训练。换一种样本顺序会有多大变化，只能从种子表中的那几次训练得知，并且只适用于那些设置。"
    ),
    "reading.verdicts": (
        "结论已按其数量校正：假如微调什么也没有改变，各类问题和各指标中出现任何“更好”或“更差”的概率为 {level}{ranking}。"
        "区间没有校正；没有结论的差值只供查看，不宜从中挑选。"
    ),
    "reading.ranking": "，相同的实验在排名中出现任何“更差”的概率也是如此",
    "reading.strict": (
        "完全匹配很严格：换一种说法的正确回答也算错。chrF、BLEU 和 ROUGE-L 奖励相似，内容指标只找词而不管其前后说了什么："
        "它们都不衡量真实与否。"
    ),
    # samples.png
    "sheet.title": "微调前后",
    "sheet.note": (
        "实验 {experiment}：第一个问题，以及其余 {others} 个中等间距选取的 {n} 个。方框：微调前的回答所指的位置。"
    ),
    "sheet.before": "微调前",
    "sheet.after": "微调后",
    "sheet.reference": "参考",
    "sheet.seen": "（训练时见过）",
}
