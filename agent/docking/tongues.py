"""The words of slots and slips in English, Russian and Kazakh."""

from typing import Literal

from agent.docking.states import Word

Language = Literal["en", "ru", "kk"]
LANGUAGES: tuple[Language, ...] = ("en", "ru", "kk")

WORDS: dict[Word, tuple[str, str, str]] = {
    Word.EMPTY: ("Empty", "Пусто", "Бос"),
    # Not the literal "occupied": in Kazakh that is one small word away from "empty".
    Word.BUSY: ("Busy", "Ждите", "Күтіңіз"),
    Word.READY: ("Ready", "Готова", "Дайын"),
    Word.TAKE: ("Take", "Возьмите", "Алыңыз"),
    Word.CHARGING: ("Charging", "Заряжается", "Зарядталуда"),
    Word.CALL: ("Call technician", "Позовите техника", "Техникті шақырыңыз"),
}

TEXTS: dict[str, tuple[str, str, str]] = {
    "on_camera": ("still on camera", "ещё на камере", "әлі камерада"),
    "in_dock": ("safe in dock", "сохранено в доке", "докта сақталды"),
    "at_centre": ("at the centre", "в центре", "орталықта"),
    "n_files": ("files", "файлов", "файл"),
    "battery": ("battery", "заряд", "заряд"),
    "clock_is": ("clock", "часы", "сағат"),
    "min_left": ("{} left", "ещё {}", "{} қалды"),
    "clearing": ("clearing", "очистка", "тазалануда"),
    "card_full": ("card full", "карта полна", "карта толы"),
    "none": ("no footage", "нет записей", "жазба жоқ"),
    "receipt": ("RECEIPT FOR FOOTAGE", "КВИТАНЦИЯ О ЗАПИСЯХ", "ЖАЗБАЛАР ТҮБІРТЕГІ"),
    "camera": ("Camera", "Камера", "Камера"),
    "officer": ("Officer", "Сотрудник", "Қызметкер"),
    "docked": ("Docked", "Сдана", "Тапсырылды"),
    "files": ("Files", "Файлов", "Файлдар"),
    "size": ("Size", "Объём", "Көлемі"),
    "first": ("First", "Первая", "Бірінші"),
    "last": ("Last", "Последняя", "Соңғы"),
    "clock": ("Its clock", "Её часы", "Сағаты"),
    "session": ("Docking", "Сдача", "Тапсыру"),
    "list": ("List", "Опись", "Тізім"),
    "safe_in_dock": ("Safe in dock", "Сохранено в доке", "Докта сақталды"),
    "centre_since": ("At the centre since", "В центре с", "Орталыққа түсті"),
    "not_all": ("NOT ALL IS SAFE", "СОХРАНЕНО НЕ ВСЁ", "БӘРІ САҚТАЛМАДЫ"),
    "not_copied": ("Not copied", "Не скопировано", "Көшірілмеді"),
}


def word(language: Language, which: Word) -> str:
    """Give the word of a slot."""
    return WORDS[which][LANGUAGES.index(language)]


def text(language: Language, key: str) -> str:
    """Give a text; KeyError for one that there is not."""
    return TEXTS[key][LANGUAGES.index(language)]
