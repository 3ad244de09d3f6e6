"""Patterns of sentences in sixteen languages, and of code: what ``text.py`` makes a text of.

All was written for this project and is under its licence. ``{name}``, ``{place}``, ``{thing}``
and ``{n}`` are filled in; the words of a language fit its patterns as they are.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Language:
    """Patterns and the words to fill them with."""

    patterns: tuple[str, ...]
    names: tuple[str, ...]
    places: tuple[str, ...]
    things: tuple[str, ...]
    join: str = " "  # between sentences


ENGLISH = Language(
    (
        "When {name} came back from {place}, the {thing} was gone and nobody could say since when.",
        "The report lists {n} cases; in most of them the {thing} had been checked twice.",
        "How far is it to {place}? Less than {n} kilometres, if the road by the river is open.",
        "A {thing} is not expensive, but replacing one costs a day and a good deal of patience.",
        "In {n}, the council of {place} decided to keep the old {thing} and to build a new school.",
        "{name} asked whether the {thing} could be repaired before winter; it could not.",
        "First warm the milk, then add the flour slowly, and stir for {n} minutes until it is thick.",
        "The experiment was repeated {n} times with the same {thing}, and the results agreed within "
        "three per cent, which was better than anyone in {place} had expected.",
        "Water boils at a lower temperature in the mountains because the pressure of the air is less.",
        '"I have never understood," said {name}, "why the {thing} must stand in the hall."',
        "If a number is divisible by 6, it is divisible by 2 and by 3; the converse is true as well.",
        "Most birds leave {place} in October; a few stay near the {thing}, where it does not freeze.",
        "The court held that the owner of the {thing} was liable, since {name} had given notice "
        "{n} days before.",
        "Her grandmother had been a teacher in {place}, and kept every {thing} that a pupil gave her.",
        "To restart the device, hold the button for {n} seconds, release it, and wait for the light.",
        "Trade between the two towns grew slowly at first, then, once the {thing} had been finished, "
        "by more than {n} per cent a year.",
        "There are three reasons for this: the price of the {thing}, the weather, and plain habit.",
        "The patient reported mild pain after {n} days; the dose was halved and the pain went away.",
        "Nobody in {place} would have called {name} a poet, and yet the letters are full of music.",
        "Because the signal is weak, the receiver averages over {n} samples before it decides.",
    ),
    ("Ada", "Thomas", "Miriam", "Mr Okafor", "Dr Lindqvist", "Jonah", "Priya", "Captain Hale"),
    ("Bristol", "the valley", "Nairobi", "the northern coast", "Halifax", "the old quarter"),
    ("lantern", "bridge", "ledger", "engine", "pump", "map", "clock", "boat", "telescope", "gate"),
)

LANGUAGES = (
    Language(  # German
        (
            "Als {name} aus {place} zurückkam, war {thing} nicht mehr da.",
            "Im Jahr {n} beschloss die Gemeinde, dass {thing} erhalten bleiben soll.",
            "Wie weit ist es nach {place}? Weniger als {n} Kilometer, wenn die Straße offen ist.",
            "Das Gerät wird {n} Sekunden lang gedrückt gehalten, bis das Licht erlischt.",
            "Niemand wusste, wem {thing} gehörte, und es fragte auch niemand danach.",
            "Die Messung wurde {n}-mal wiederholt; die Abweichung blieb unter drei Prozent.",
        ),
        ("Anna", "Herr Weber", "Jürgen", "Frau Schäfer"),
        ("Köln", "Graz", "dem Dorf am See", "Bern"),
        ("die alte Brücke", "das Fahrrad", "der Schlüssel", "das Wörterbuch"),
    ),
    Language(  # French
        (
            "Quand {name} est rentré de {place}, {thing} avait disparu.",
            "En {n}, la commune a décidé de conserver {thing} malgré le coût.",
            "Il faut compter {n} minutes de marche pour aller jusqu'à {place}.",
            "On ne savait pas à qui appartenait {thing}, et personne ne l'a demandé.",
            "L'expérience a été répétée {n} fois, avec des résultats presque identiques.",
            "Mélangez la farine et les œufs, puis laissez reposer la pâte pendant {n} minutes.",
        ),
        ("Camille", "Monsieur Petit", "Élodie", "Hugo"),
        ("Lyon", "Genève", "Québec", "la gare"),
        ("le vieux pont", "la lettre", "l'horloge", "le carnet bleu"),
    ),
    Language(  # Spanish
        (
            "Cuando {name} volvió de {place}, {thing} ya no estaba allí.",
            "En {n} el ayuntamiento decidió conservar {thing}, aunque era caro.",
            "¿Cuánto falta para llegar a {place}? Menos de {n} kilómetros.",
            "El agua hierve antes en la montaña porque la presión del aire es menor.",
            "Se repitió la prueba {n} veces y el error no pasó del tres por ciento.",
            "Nadie preguntó de quién era {thing}, y así pasó el invierno.",
        ),
        ("Lucía", "don Ramón", "Javier", "la señora Ibáñez"),
        ("Sevilla", "Bogotá", "la costa", "Montevideo"),
        ("el puente viejo", "la llave", "el reloj", "la carta"),
    ),
    Language(  # Italian
        (
            "Quando {name} tornò da {place}, {thing} non c'era più.",
            "Nel {n} il comune decise di conservare {thing} nonostante le spese.",
            "Mancano ancora {n} chilometri per arrivare a {place}.",
            "L'esperimento è stato ripetuto {n} volte, sempre con lo stesso risultato.",
            "Nessuno sapeva di chi fosse {thing}, e nessuno lo chiese.",
        ),
        ("Giulia", "il signor Rossi", "Matteo"),
        ("Torino", "Bari", "Lugano"),
        ("il vecchio ponte", "la chiave", "l'orologio", "la lettera"),
    ),
    Language(  # Portuguese
        (
            "Quando {name} voltou de {place}, {thing} já não estava lá.",
            "Em {n}, a câmara decidiu manter {thing}, apesar do preço.",
            "Faltam menos de {n} quilômetros para chegar a {place}.",
            "A experiência foi repetida {n} vezes e o erro não passou de três por cento.",
            "Ninguém perguntou de quem era {thing}.",
        ),
        ("João", "Beatriz", "o senhor Costa"),
        ("Lisboa", "Recife", "Maputo"),
        ("a ponte velha", "o relógio", "a carta", "o barco"),
    ),
    Language(  # Dutch
        (
            "Toen {name} terugkwam uit {place}, was {thing} verdwenen.",
            "In {n} besloot de gemeente dat {thing} moest blijven.",
            "Het is nog {n} kilometer naar {place}, als de dijk open is.",
            "De proef werd {n} keer herhaald met bijna hetzelfde resultaat.",
        ),
        ("Sanne", "meneer De Vries", "Pieter"),
        ("Utrecht", "Gent", "Leiden"),
        ("de oude brug", "het boek", "de sleutel"),
    ),
    Language(  # Polish
        (
            "Kiedy {name} wrócił z podróży, {thing} zniknął bez śladu.",
            "W {n} roku rada miasta postanowiła, że {thing} zostanie na swoim miejscu.",
            "Do miasta {place} jest mniej niż {n} kilometrów, jeśli droga jest otwarta.",
            "Pomiar powtórzono {n} razy, a błąd nie przekroczył trzech procent.",
        ),
        ("Tomasz", "pan Kowalski", "Łukasz"),
        ("Kraków", "Gdańsk", "Łódź"),
        ("stary most", "zegar", "klucz", "dziennik"),
    ),
    Language(  # Russian
        (
            "Когда {name} вернулся домой, {thing} уже исчез, и никто не знал куда.",
            "В {n} году город {place} решил сохранить старую мельницу у реки.",
            "До города {place} меньше {n} километров, если дорога открыта.",
            "Опыт повторили {n} раз, и погрешность не превысила трёх процентов.",
            "Вода в горах кипит при более низкой температуре, потому что давление меньше.",
        ),
        ("Алексей", "доктор Орлов", "Илья"),
        ("Казань", "Томск", "Псков"),
        ("ключ", "фонарь", "старый мост", "дневник"),
    ),
    Language(  # Turkish
        (
            "{name} döndüğünde {thing} artık yerinde değildi.",
            "{place} şehrine {n} kilometreden az kaldı, yol açıksa.",
            "Deney {n} kez tekrarlandı ve sonuçlar neredeyse aynı çıktı.",
            "{n} yılında belediye eski köprüyü korumaya karar verdi.",
        ),
        ("Ayşe", "Mehmet Bey", "Çağrı"),
        ("İzmir", "Konya", "Ankara"),
        ("anahtar", "saat", "mektup", "defter"),
    ),
    Language(  # Arabic
        (
            "عندما عاد {name} من {place} لم يجد {thing} في مكانه.",
            "في عام {n} قرر المجلس أن يحافظ على الجسر القديم.",
            "المسافة إلى {place} أقل من {n} كيلومترا إذا كان الطريق مفتوحا.",
            "أعيدت التجربة {n} مرات وكانت النتائج متقاربة جدا.",
        ),
        ("سامي", "خالد", "الدكتور يوسف"),
        ("القاهرة", "تونس", "عمان"),
        ("المفتاح", "الكتاب", "المصباح"),
    ),
    Language(  # Hindi
        (
            "जब {name} {place} से लौटा, तब तक {thing} वहाँ नहीं था।",
            "{place} यहाँ से {n} किलोमीटर से कम दूर है।",
            "यह प्रयोग {n} बार दोहराया गया और परिणाम लगभग समान रहे।",
            "वर्ष {n} में नगर ने पुराने पुल को बचाने का निर्णय लिया।",
        ),
        ("राहुल", "अनिल", "डॉक्टर मेहता"),
        ("दिल्ली", "पुणे", "जयपुर"),
        ("पुराना नक्शा", "दीपक", "पत्र"),
    ),
    Language(  # Chinese
        (
            "{name}从{place}回来的时候,{thing}已经不见了。",
            "到{place}还有不到{n}公里,如果路没有封的话。",
            "这个实验重复了{n}次,误差没有超过百分之三。",
            "{n}年,市里决定保留那座老桥,并在旁边建一所学校。",
            "山上气压低,所以水在较低的温度就会沸腾。",
        ),
        ("小林", "王老师", "陈医生"),
        ("上海", "成都", "海边的小镇"),
        ("那本字典", "钥匙", "旧钟", "信"),
        join="",
    ),
    Language(  # Japanese
        (
            "{name}が{place}から戻ったとき、{thing}はもうなかった。",
            "{place}までは{n}キロもありません。",
            "実験は{n}回繰り返され、結果はほとんど同じでした。",
            "{n}年に町は古い橋を残すことに決めた。",
        ),
        ("佐藤さん", "花子", "先生"),
        ("京都", "港", "札幌"),
        ("時計", "手紙", "地図"),
        join="",
    ),
    Language(  # Korean
        (
            "{name} 씨가 {place}에서 돌아왔을 때 {thing}은 이미 없었다.",
            "{place}까지는 {n}킬로미터가 채 되지 않는다.",
            "실험은 {n}번 반복되었고 결과는 거의 같았다.",
            "{n}년에 시는 오래된 다리를 보존하기로 했다.",
        ),
        ("민수", "지은", "박 선생"),
        ("부산", "전주", "강릉"),
        ("책", "등불", "사진"),
    ),
    Language(  # Vietnamese
        (
            "Khi {name} trở về từ {place}, {thing} đã không còn ở đó nữa.",
            "Còn chưa đến {n} cây số nữa là tới {place}.",
            "Thí nghiệm được lặp lại {n} lần và kết quả gần như giống nhau.",
        ),
        ("Minh", "cô Lan", "bác Hùng"),
        ("Huế", "Đà Nẵng", "Hà Nội"),
        ("cây cầu cũ", "chiếc chìa khóa", "bức thư"),
    ),
)

CODE = (
    '''def {a}_{b}(values: list[float], limit: int = {n}) -> float:
    """Returns the mean of the first values."""
    total = 0.0
    for index, value in enumerate(values[:limit]):
        if value != value:
            raise ValueError(f"value {{index}} is not a number")
        total += value
    return total / max(1, min(limit, len(values)))
''',
    """static int {a}_{b}(const uint8_t *data, size_t size, int *out) {{
    size_t i;
    *out = 0;
    for (i = 0; i + 1 < size; i += 2) {{
        *out += (data[i] << 8) | data[i + 1];
        if (*out > {n}) return -1;
    }}
    return 0;
}}
""",
    """SELECT {a}.id, {a}.name, COUNT({b}.id) AS total
FROM {a} LEFT JOIN {b} ON {b}.{a}_id = {a}.id
WHERE {a}.created_at >= '2019-0{d}-01' AND {b}.amount < {n}
GROUP BY {a}.id, {a}.name HAVING COUNT({b}.id) > {d} ORDER BY total DESC LIMIT 20;
""",
    """export async function {a}{B}(url, retries = {d}) {{
  for (let attempt = 0; attempt <= retries; attempt++) {{
    const response = await fetch(`${{url}}/{b}?page=${{attempt}}`);
    if (response.ok) return (await response.json()).{b} ?? [];
    await new Promise((done) => setTimeout(done, {n} * 2 ** attempt));
  }}
  throw new Error("{a} failed");
}}
""",
    """#!/bin/sh
set -eu
for file in "$@"; do
    lines=$(wc -l < "$file")
    [ "$lines" -gt {n} ] && echo "$file: $lines {a}" >> "{b}.log" || true
done
""",
    """{{"{a}": {{"id": {n}, "{b}": [{d}, 2.5, -1e-{d}], "active": true, "parent": null,
  "labels": ["{b}", "{a}-{d}"], "path": "/var/lib/{a}/{b}.db"}}}}
""",
    """<section class="{a}"><h2>{B}</h2>
  <ul><li><a href="/{b}?id={n}">{a} {d}</a></li><li>&nbsp;</li></ul>
</section>
""",
    """impl {B} {{
    pub fn {a}(&self, key: &str) -> Result<Option<u64>, Error> {{
        let Some(slot) = self.slots.get(key) else {{ return Ok(None) }};
        if slot.age > {n} {{ return Err(Error::Stale(key.to_owned())) }}
        Ok(Some(slot.value + {d}))
    }}
}}
""",
)
IDENTIFIERS = (
    "account", "buffer", "cache", "device", "event", "filter", "graph", "header", "index", "job",
    "kernel", "layer", "message", "node", "order", "packet", "queue", "record", "stream", "token",
)  # fmt: skip

QUESTIONS = (
    ("What is {n} times {d}?", "{n} times {d} is {product}."),
    (
        "Explain in two sentences why the sky is blue.",
        "Air scatters short waves of light more than long ones. So blue light reaches us from "
        "everywhere in the sky, while red light comes mostly straight from the sun.",
    ),
    (
        "Write a polite reminder about the {thing} to {name}.",
        "Dear {name},\n\nthis is a short reminder that the {thing} is still with you. Could you "
        "bring it back by Friday?\n\nKind regards",
    ),
    (
        "Sort these by size: {n}, {d}, {product}.",
        "From the smallest to the largest:\n\n1. {d}\n2. {n}\n3. {product}",
    ),
    (
        "Give me three ideas for a rainy day in {place}.",
        "- Visit a **museum** you have never been to.\n- Cook something that takes all afternoon.\n"
        "- Write a letter by hand, to {name} for example.",
    ),
    (
        "Is the following statement true? Every prime number is odd.",
        "No. The number 2 is prime and even; every *other* prime number is odd.",
    ),
)
# How families of models write a conversation: the user's turn, the answer's, and what begins it.
CHATS = (
    (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n",
        "<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n",
    ),
    (
        "<|begin_of_text|>",
        "<|start_header_id|>user<|end_header_id|>\n\n{question}<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n{answer}<|eot_id|>",
    ),
    (
        "",
        "<start_of_turn>user\n{question}<end_of_turn>\n<start_of_turn>model\n{answer}<end_of_turn>\n",
    ),
    ("", "[INST] {question} [/INST] {answer}</s>"),
    ("", "### Instruction:\n{question}\n\n### Response:\n{answer}\n\n"),
)
