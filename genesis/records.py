"""Made-up Chinese health records in FHIR R4, for demonstrations, benchmarks and tests.

What it decides: the bytes of record n of a seed; the same seed gives the same bytes everywhere.
What it never does: resemble a living person. Resident ids have a valid form and check digit but
begin with 99, a province that does not exist; telephone numbers begin with 100, which no subscriber
has; hospitals, cities and people are invented, and every record carries the label HTEST.
Source: FHIR R4 (4.0.1); GB 11643-1999 (resident id); ICD-10; LOINC; UCUM; ATC; CVX.
"""

# ruff: noqa: RUF001 - Chinese text is written with Chinese punctuation

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from itertools import islice
from random import Random
from typing import TypeAlias
from uuid import UUID

_Resource: TypeAlias = dict[str, object]


def make_records(count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """`count` files of one resource each: (file name, UTF-8 JSON of about 2 KB).

    Nine records tell the visit of one patient: who, where, the diagnosis, three observations, the
    prescription, the report, a vaccination; references between them hold.
    """
    rng = Random(seed)  # noqa: S311 - demonstration data must repeat; no key comes from here
    for number, resource in enumerate(islice(_resources(rng), count)):
        text = json.dumps(resource, ensure_ascii=False, indent=2)
        yield f"{number:06d}-{resource['resourceType']}.json", text.encode() + b"\n"


def check_character(first_17: str) -> str:
    """The 18th character of a resident id: ISO 7064 MOD 11-2 over its 17 digits (GB 11643)."""
    total = sum(int(digit) * pow(2, 17 - place, 11) for place, digit in enumerate(first_17))
    return "10X98765432"[total % 11]


@dataclass(frozen=True, slots=True)
class _Disease:
    code: str
    name: str
    atc: str
    drug: str
    dose: str
    daily: int


@dataclass(frozen=True, slots=True)
class _Hospital:
    name: str
    code: str


@dataclass(frozen=True, slots=True)
class _Visit:
    """What the records of one visit have in common; ids are those of FHIR."""

    patient: str
    name: str
    male: bool
    birth: date
    hospital: _Hospital
    department: str
    doctor: str
    start: datetime
    disease: _Disease
    encounter: str
    glucose: str
    hba1c: str


_SURNAMES = "王李张刘陈杨赵黄周吴徐孙胡朱高林何郭马罗梁宋郑谢韩唐冯于董萧程曹袁邓许傅沈曾彭吕"
_GIVEN_MALE = "伟强磊军勇涛明超杰辉刚鹏浩宇志建国文博睿泽轩晨阳俊楠凯铭"
_GIVEN_FEMALE = "芳娜敏静丽艳娟霞秀慧玲雪梅婷颖琳欣怡佳雨桐诗涵思嘉宁悦妍"
_REGIONS = (
    ("990101", "示范省示范市城东区"),
    ("990102", "示范省示范市城西区"),
    ("990203", "示范省样例市河南岸区"),
    ("990321", "示范省演示市青山县"),
)
_STREETS = ("康宁路", "杏林街", "百草巷", "长青大道", "和平里", "望山路")
_HOSPITALS = (
    _Hospital("示范市第一人民医院", "SFYY0001"),
    _Hospital("示范市中医院", "SFYY0002"),
    _Hospital("样例市妇幼保健院", "SFYY0003"),
    _Hospital("演示市青山县人民医院", "SFYY0004"),
    _Hospital("示范市城东社区卫生服务中心", "SFYY0005"),
)
_DEPARTMENTS = ("内分泌科", "心血管内科", "全科医学科", "呼吸内科", "消化内科", "老年病科")
_DISEASES = (
    _Disease("I10", "特发性（原发性）高血压", "C08CA01", "苯磺酸氨氯地平片", "5 mg", 1),
    _Disease("I10", "特发性（原发性）高血压", "C09CA03", "缬沙坦胶囊", "80 mg", 1),
    _Disease("E11.9", "2型糖尿病不伴有并发症", "A10BA02", "盐酸二甲双胍片", "500 mg", 2),
    _Disease("E11.9", "2型糖尿病不伴有并发症", "A10BF01", "阿卡波糖片", "50 mg", 3),
    _Disease("E78.5", "高脂血症", "C10AA05", "阿托伐他汀钙片", "20 mg", 1),
    _Disease("I25.1", "动脉硬化性心脏病", "B01AC06", "阿司匹林肠溶片", "100 mg", 1),
    _Disease("J45.9", "哮喘", "R03DC03", "孟鲁司特钠片", "10 mg", 1),
    _Disease("K29.5", "慢性胃炎", "A02BC01", "奥美拉唑肠溶胶囊", "20 mg", 1),
    _Disease("M81.9", "骨质疏松", "M05BA04", "阿仑膦酸钠片", "10 mg", 1),
)
_VACCINES = (
    ("88", "流感病毒裂解疫苗"),
    ("33", "23价肺炎球菌多糖疫苗"),
    ("45", "重组乙型肝炎疫苗"),
    ("187", "重组带状疱疹疫苗"),
)
_CHINA = timezone(timedelta(hours=8))
_FIRST_DAY = datetime(2024, 1, 2, 8, 0, tzinfo=_CHINA)
_DAYS = 700
_OLDEST = date(1938, 1, 1)
_BIRTH_DAYS = 24_000  # until September 2003: everybody here is an adult

_ICD10 = "http://hl7.org/fhir/sid/icd-10"
_LOINC = "http://loinc.org"
_UCUM = "http://unitsofmeasure.org"
_ATC = "http://www.whocc.no/atc"
_CVX = "http://hl7.org/fhir/sid/cvx"
_HL7 = "http://terminology.hl7.org/CodeSystem/"
_RESIDENT_ID = "urn:oid:2.16.156.10011.1.3"


def _resources(rng: Random) -> Iterator[_Resource]:
    while True:
        visit = _visit(rng)
        yield _patient(rng, visit)
        yield _encounter(rng, visit)
        yield _condition(rng, visit)
        yield _blood_pressure(rng, visit)
        fasting = rng.randrange(39, 121)
        yield _glucose(visit, fasting)
        share = 30 + fasting // 2 + rng.randrange(12)
        yield _hba1c(visit, share)
        yield _prescription(rng, visit)
        yield _report(rng, visit, fasting, share)
        yield _vaccination(rng, visit)


def _visit(rng: Random) -> _Visit:
    male = rng.random() < 0.5
    return _Visit(
        patient=_id(rng),
        name=_name(rng, male=male),
        male=male,
        birth=_OLDEST + timedelta(days=rng.randrange(_BIRTH_DAYS)),
        hospital=rng.choice(_HOSPITALS),
        department=rng.choice(_DEPARTMENTS),
        doctor=_name(rng, male=rng.random() < 0.5),
        start=_FIRST_DAY + timedelta(days=rng.randrange(_DAYS), minutes=rng.randrange(9 * 60)),
        disease=rng.choice(_DISEASES),
        encounter=_id(rng),
        glucose=_id(rng),
        hba1c=_id(rng),
    )


def _id(rng: Random) -> str:
    return str(UUID(int=rng.getrandbits(128), version=4))


def _name(rng: Random, *, male: bool) -> str:
    given = _GIVEN_MALE if male else _GIVEN_FEMALE
    return rng.choice(_SURNAMES) + "".join(rng.choice(given) for _ in range(rng.choice((1, 2, 2))))


def _patient(rng: Random, visit: _Visit) -> _Resource:
    region, district = rng.choice(_REGIONS)
    order = rng.randrange(500) * 2 + visit.male  # odd numbers are male (GB 11643)
    first_17 = f"{region}{visit.birth:%Y%m%d}{order:03d}"
    street = f"{rng.choice(_STREETS)}{rng.randrange(1, 300)}号"
    sex = "男" if visit.male else "女"
    head = _head("Patient", visit.patient, visit, f"{visit.name}，{sex}，{visit.birth}出生")
    return head | {
        "identifier": [
            {
                "use": "official",
                "type": _concept(_HL7 + "v2-0203", "NNCHN", "居民身份证号"),
                "system": _RESIDENT_ID,
                "value": first_17 + check_character(first_17),
            },
            {
                "use": "usual",
                "type": _concept(_HL7 + "v2-0203", "MR", "病案号"),
                "system": f"urn:kanglian:demonstration:{visit.hospital.code}",
                "value": f"{rng.randrange(10**8):08d}",
            },
        ],
        "active": True,
        "name": [
            {
                "use": "official",
                "text": visit.name,
                "family": visit.name[0],
                "given": [visit.name[1:]],
            }
        ],
        "telecom": [
            {"system": "phone", "value": f"100{rng.randrange(10**8):08d}", "use": "mobile"}
        ],
        "gender": "male" if visit.male else "female",
        "birthDate": visit.birth.isoformat(),
        "address": [
            {
                "use": "home",
                "text": district + street,
                "line": [street],
                "district": district,
                "country": "CN",
            }
        ],
        "communication": [{"language": _concept("urn:ietf:bcp:47", "zh-CN", "中文")}],
        "managingOrganization": {"display": visit.hospital.name},
    }


def _encounter(rng: Random, visit: _Visit) -> _Resource:
    head = _head(
        "Encounter", visit.encounter, visit, f"{visit.hospital.name}{visit.department}门诊就诊"
    )
    end = visit.start + timedelta(minutes=rng.randrange(8, 40))
    return head | {
        "status": "finished",
        "class": _coding(_HL7 + "v3-ActCode", "AMB", "门诊"),
        "type": [{"text": f"{visit.department}门诊"}],
        "subject": _patient_of(visit),
        "participant": [
            {
                "type": [_concept(_HL7 + "v3-ParticipationType", "PPRF", "主诊医师")],
                "individual": {"display": f"{visit.doctor} 医师"},
            }
        ],
        "period": {"start": visit.start.isoformat(), "end": end.isoformat()},
        "reasonCode": [_concept(_ICD10, visit.disease.code, visit.disease.name)],
        "serviceProvider": {"display": visit.hospital.name},
    }


def _condition(rng: Random, visit: _Visit) -> _Resource:
    onset = visit.start.date() - timedelta(days=rng.randrange(30, 3_000))
    head = _head(
        "Condition", _id(rng), visit, f"诊断：{visit.disease.name}（{visit.disease.code}）"
    )
    return head | {
        "clinicalStatus": _concept(_HL7 + "condition-clinical", "active", "活动"),
        "verificationStatus": _concept(_HL7 + "condition-ver-status", "confirmed", "确诊"),
        "category": [_concept(_HL7 + "condition-category", "encounter-diagnosis", "就诊诊断")],
        "code": _concept(_ICD10, visit.disease.code, visit.disease.name),
        **_circumstances(visit),
        "onsetDateTime": onset.isoformat(),
        "recordedDate": visit.start.isoformat(),
        "note": [{"text": "患者神志清，精神可，按时服药，建议低盐低脂饮食，适量运动，定期复查。"}],
    }


def _blood_pressure(rng: Random, visit: _Visit) -> _Resource:
    systolic = rng.randrange(102, 178)
    diastolic = systolic - rng.randrange(34, 62)
    high = systolic >= 140 or diastolic >= 90
    head = _head("Observation", _id(rng), visit, f"血压 {systolic}/{diastolic} mmHg")
    return head | {
        "status": "final",
        "category": [_concept(_HL7 + "observation-category", "vital-signs", "生命体征")],
        "code": _concept(_LOINC, "85354-9", "血压"),
        **_circumstances(visit),
        "effectiveDateTime": visit.start.isoformat(),
        "interpretation": [_level(high=high)],
        "bodySite": {"text": rng.choice(("左上臂", "右上臂"))},
        "component": [
            {
                "code": _concept(_LOINC, "8480-6", "收缩压"),
                "valueQuantity": _quantity(systolic, "mmHg", "mm[Hg]"),
            },
            {
                "code": _concept(_LOINC, "8462-4", "舒张压"),
                "valueQuantity": _quantity(diastolic, "mmHg", "mm[Hg]"),
            },
        ],
    }


def _glucose(visit: _Visit, tenths: int) -> _Resource:
    head = _head("Observation", visit.glucose, visit, f"空腹血糖 {tenths / 10} mmol/L")
    return head | {
        **_laboratory(visit, "14771-0", "空腹血糖"),
        "interpretation": [_level(high=tenths > 61)],
        "valueQuantity": _quantity(tenths / 10, "mmol/L", "mmol/L"),
        "method": {"text": "葡萄糖氧化酶法"},
        "referenceRange": [
            {
                "low": _quantity(3.9, "mmol/L", "mmol/L"),
                "high": _quantity(6.1, "mmol/L", "mmol/L"),
                "text": "3.9-6.1 mmol/L",
            }
        ],
    }


def _hba1c(visit: _Visit, tenths: int) -> _Resource:
    head = _head("Observation", visit.hba1c, visit, f"糖化血红蛋白 {tenths / 10}%")
    return head | {
        **_laboratory(visit, "4548-4", "糖化血红蛋白（HbA1c）"),
        "interpretation": [_level(high=tenths > 60)],
        "valueQuantity": _quantity(tenths / 10, "%", "%"),
        "method": {"text": "高效液相色谱法"},
        "referenceRange": [
            {
                "low": _quantity(4.0, "%", "%"),
                "high": _quantity(6.0, "%", "%"),
                "text": "4.0-6.0 %",
            }
        ],
    }


def _prescription(rng: Random, visit: _Visit) -> _Resource:
    disease = visit.disease
    days = rng.choice((14, 28, 30))
    usage = f"口服，每次{disease.dose}，每日{disease.daily}次"
    head = _head("MedicationRequest", _id(rng), visit, f"{disease.drug}，{usage}")
    return head | {
        "status": "active",
        "intent": "order",
        "medicationCodeableConcept": _concept(_ATC, disease.atc, disease.drug),
        **_circumstances(visit),
        "authoredOn": visit.start.isoformat(),
        "requester": {"display": f"{visit.doctor} 医师"},
        "reasonCode": [_concept(_ICD10, disease.code, disease.name)],
        "dosageInstruction": [
            {
                "text": usage,
                "timing": {"repeat": {"frequency": disease.daily, "period": 1, "periodUnit": "d"}},
                "route": {"text": "口服"},
                "doseAndRate": [{"doseQuantity": _dose(disease.dose)}],
            }
        ],
        "dispenseRequest": {
            "numberOfRepeatsAllowed": rng.randrange(3),
            "expectedSupplyDuration": _quantity(days, "天", "d"),
        },
    }


def _report(rng: Random, visit: _Visit, fasting: int, share: int) -> _Resource:
    known = "血糖代谢指标升高，请结合临床" if fasting > 61 or share > 60 else "未见明显异常"
    conclusion = f"空腹血糖 {fasting / 10} mmol/L，糖化血红蛋白 {share / 10}%。{known}。"
    head = _head("DiagnosticReport", _id(rng), visit, f"生化检验报告：{conclusion}")
    return head | {
        "status": "final",
        "category": [_concept(_HL7 + "v2-0074", "CH", "生化检验")],
        "code": _concept(_LOINC, "11502-2", "检验报告"),
        **_circumstances(visit),
        "effectiveDateTime": visit.start.isoformat(),
        "issued": (visit.start + timedelta(minutes=rng.randrange(60, 300))).isoformat(),
        "performer": [{"display": f"{visit.hospital.name}检验科"}],
        "result": [
            {"reference": f"Observation/{visit.glucose}", "display": "空腹血糖"},
            {"reference": f"Observation/{visit.hba1c}", "display": "糖化血红蛋白（HbA1c）"},
        ],
        "conclusion": conclusion,
    }


def _vaccination(rng: Random, visit: _Visit) -> _Resource:
    code, name = rng.choice(_VACCINES)
    head = _head("Immunization", _id(rng), visit, f"接种{name}")
    return head | {
        "status": "completed",
        "vaccineCode": _concept(_CVX, code, name),
        "patient": _patient_of(visit),
        "encounter": {"reference": f"Encounter/{visit.encounter}"},
        "occurrenceDateTime": visit.start.isoformat(),
        "primarySource": True,
        "manufacturer": {"display": "示范生物制品有限公司"},
        "lotNumber": f"SF{visit.start:%Y%m}{rng.randrange(1_000):03d}",
        "expirationDate": f"{visit.start.date() + timedelta(days=365)}",
        "site": {"text": rng.choice(("左上臂三角肌", "右上臂三角肌"))},
        "route": {"text": "肌内注射"},
        "doseQuantity": _quantity(0.5, "mL", "mL"),
        "performer": [{"actor": {"display": f"{visit.hospital.name}预防接种门诊"}}],
        "protocolApplied": [{"doseNumberPositiveInt": 1, "targetDisease": [{"text": name[:-2]}]}],
    }


def _head(kind: str, identifier: str, visit: _Visit, summary: str) -> _Resource:
    """What every resource begins with: type, id, label of test data, and a text for people."""
    return {
        "resourceType": kind,
        "id": identifier,
        "meta": {
            "versionId": "1",
            "lastUpdated": visit.start.isoformat(),
            "security": [_coding(_HL7 + "v3-ActReason", "HTEST", "测试用健康数据，非真实患者")],
        },
        "language": "zh-CN",
        "text": {
            "status": "generated",
            "div": f'<div xmlns="http://www.w3.org/1999/xhtml"><p>{summary}</p></div>',
        },
    }


def _laboratory(visit: _Visit, code: str, name: str) -> _Resource:
    return {
        "status": "final",
        "category": [_concept(_HL7 + "observation-category", "laboratory", "实验室检验")],
        "code": _concept(_LOINC, code, name),
        **_circumstances(visit),
        "effectiveDateTime": visit.start.isoformat(),
        "performer": [{"display": f"{visit.hospital.name}检验科"}],
    }


def _circumstances(visit: _Visit) -> _Resource:
    return {
        "subject": _patient_of(visit),
        "encounter": {
            "reference": f"Encounter/{visit.encounter}",
            "display": f"{visit.hospital.name}{visit.department}",
        },
    }


def _patient_of(visit: _Visit) -> _Resource:
    return {"reference": f"Patient/{visit.patient}", "display": visit.name}


def _coding(system: str, code: str, display: str) -> _Resource:
    return {"system": system, "code": code, "display": display}


def _concept(system: str, code: str, display: str) -> _Resource:
    return {"coding": [_coding(system, code, display)], "text": display}


def _level(*, high: bool) -> _Resource:
    code, name = ("H", "偏高") if high else ("N", "正常")
    return _concept(_HL7 + "v3-ObservationInterpretation", code, name)


def _quantity(value: float, unit: str, code: str) -> _Resource:
    return {"value": value, "unit": unit, "system": _UCUM, "code": code}


def _dose(text: str) -> _Resource:
    value, unit = text.split()
    return _quantity(int(value), unit, unit)
