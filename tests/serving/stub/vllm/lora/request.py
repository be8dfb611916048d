class LoRARequest:
    def __init__(self, name, number, path):
        self.name, self.number, self.path = name, number, path
